"""What is compared with: small programs that import none of our packages, tuned as their users would tune them.

Each is a process of its own that does its work once for every line on its standard input and answers with a line of
JSON. `orchestrator.bench.bare_process` starts them.
"""
