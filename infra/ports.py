"""Address and ports of the services on this machine."""

from __future__ import annotations

HOST = "127.0.0.1"
PORTS = {
    "prefect": ("DXAI_PREFECT_PORT", 4250),
    "mlflow": ("DXAI_MLFLOW_PORT", 5050),
    "postgres": ("DXAI_POSTGRES_PORT", 5450),
    "store": ("DXAI_STORE_PORT", 9050),
    "ray-head": ("DXAI_RAY_PORT", 6390),
}
"""Environment variable and default of each port; prefect.toml repeats the first default."""
