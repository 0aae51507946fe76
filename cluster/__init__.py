"""Where things run: joining or starting Ray, placing workers, and calling them.

Ray reads its environment when it is imported, and this is the only package that imports it: so what every session
needs is set here, before that can happen. Set by default only: a variable that is there already is left alone.
"""

import os

# Nothing that runs under us reports home.
TELEMETRY_OFF = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
# Ray's processes talk to those only who know the cluster's token.
AUTHENTICATION_ON = {"RAY_AUTH_MODE": "token"}
# Of the calls that a loss makes useless nobody reads the results; Ray would print their tracebacks on the screen.
QUIET = {"RAY_IGNORE_UNHANDLED_ERRORS": "1"}

for _name, _value in {**TELEMETRY_OFF, **AUTHENTICATION_ON, **QUIET}.items():
    os.environ.setdefault(_name, _value)
