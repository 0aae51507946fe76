"""As much of S3's protocol as pyarrow speaks, in memory and in threads of this process; signatures are not checked."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from time import gmtime, strftime, time
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bucket"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


class S3:
    """What is stored, and what has been asked for.

    with s3_server() as s3:                                  # which also sets credentials for this process
        RemoteFolder(s3.uri("checkpoints"))
        s3.objects["checkpoints/a/x"] = b"content"
        s3.refused = "PUT /bucket/checkpoints/.*manifest"    # is answered with 403
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}  # of the only bucket, by key
        self.times: dict[str, float] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}  # begun in parts
        self.requests: list[str] = []
        self.refused: str | None = None
        self.lock = Lock()
        self.port = 0

    def uri(self, prefix: str, bucket: str = BUCKET) -> str:
        return f"s3://{bucket}/{prefix}?scheme=http&endpoint_override=127.0.0.1:{self.port}"

    def put(self, key: str, content: bytes) -> None:
        self.objects[key], self.times[key] = content, time()

    def names(self, prefix: str) -> list[str]:
        """Keys below a prefix, without it and without what stands for a folder."""
        return sorted(key[len(prefix) :] for key in self.objects if key.startswith(prefix) and not key.endswith("/"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one packet: the second of two would wait for the first one's acknowledgement
    disable_nagle_algorithm = True
    s3: S3

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def handle_expect_100(self) -> bool:
        """Say at once that the body may come."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        body = self._body()
        asked = f"{self.command} {self.path}"
        with self.s3.lock:
            self.s3.requests.append(asked)
            if self.s3.refused and re.match(self.s3.refused, asked):
                self._error(403, "AccessDenied")
            elif bucket != BUCKET:
                self._error(404, "NoSuchBucket")
            elif not key:
                self._of_bucket(query, body)
            elif self.command in ("GET", "HEAD"):
                self._get(key)
            elif self.command == "DELETE":
                self.s3.objects.pop(key, None)
                self._answer(204)
            else:
                self._write(key, query, body)

    def _of_bucket(self, query: dict[str, str], body: bytes) -> None:
        if self.command == "POST" and "delete" in query:
            for key in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                self.s3.objects.pop(unquote(key), None)
            self._answer(200, "<DeleteResult></DeleteResult>")
        elif self.command == "GET":
            self._list(query.get("prefix", ""), query.get("delimiter", ""), int(query.get("max-keys", 1000)))
        else:
            self._answer(200)

    def _list(self, prefix: str, delimiter: str, limit: int) -> None:
        keys, folders = [], set()
        for key in sorted(self.s3.objects):
            if key.startswith(prefix):
                head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
                folders.add(prefix + head + found) if found else keys.append(key)
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.s3.objects[key])}</Size>"
            f"<LastModified>{strftime('%Y-%m-%dT%H:%M:%S.000Z', gmtime(self.s3.times[key]))}</LastModified></Contents>"
            for key in keys[:limit]
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        count = f"<KeyCount>{len(keys[:limit]) + len(folders)}</KeyCount><IsTruncated>false</IsTruncated>"
        self._answer(200, f"<ListBucketResult>{count}{contents}{common}</ListBucketResult>")

    def _get(self, key: str) -> None:
        content = self.s3.objects.get(key)
        if content is None:
            self._error(404, "NoSuchKey")
            return
        headers = {"Last-Modified": formatdate(self.s3.times[key], usegmt=True), "ETag": _tag(content)}
        if part := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last = int(part[1]), min(int(part[2]), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._answer(206, content[first : last + 1], headers)
        else:
            self._answer(200, content, headers)

    def _write(self, key: str, query: dict[str, str], body: bytes) -> None:
        if "uploads" in query:
            upload = f"upload-{len(self.s3.uploads)}"
            self.s3.uploads[upload] = {}
            told = f"<Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
            self._answer(200, f"<InitiateMultipartUploadResult>{told}</InitiateMultipartUploadResult>")
        elif "partNumber" in query:
            self.s3.uploads[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, headers={"ETag": _tag(body)})
        elif "uploadId" in query:
            parts = self.s3.uploads.pop(query["uploadId"])
            self.s3.put(key, b"".join(parts[number] for number in sorted(parts)))
            tag = f"<Key>{escape(key)}</Key><ETag>{_tag(self.s3.objects[key])}</ETag>"
            self._answer(200, f"<CompleteMultipartUploadResult>{tag}</CompleteMultipartUploadResult>")
        elif source := self.headers.get("x-amz-copy-source"):
            self.s3.put(key, self.s3.objects[unquote(source).lstrip("/").partition("/")[2]])
            self._answer(200, f"<CopyObjectResult><ETag>{_tag(self.s3.objects[key])}</ETag></CopyObjectResult>")
        else:
            self.s3.put(key, body)
            self._answer(200, headers={"ETag": _tag(body)})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            content = b""
            while size := int(re.match(rb"[0-9a-fA-F]+", body)[0], 16):  # type: ignore[index]
                start = body.index(b"\r\n") + 2
                content, body = content + body[start : start + size], body[start + size + 2 :]
            return content
        return body

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _error(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{code} {quote(self.path)}</Message></Error>")

    def _answer(self, status: int, body: str | bytes = b"", headers: dict[str, str] | None = None) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def s3_server() -> Iterator[S3]:
    """A store with one empty bucket, and an environment in which it can be asked."""
    s3 = S3()
    before = {name: os.environ.get(name) for name in KEYS}
    os.environ.update(KEYS)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"s3": s3}))
    server.daemon_threads = True
    s3.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield s3
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _tag(content: bytes) -> str:
    return f'"{md5(content, usedforsecurity=False).hexdigest()}"'
