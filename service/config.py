"""Settings: every environment variable, in one class."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.artifacts.store import ARTIFACTS


class Settings(BaseSettings):
    """Read from ESPALIER_* variables. Without any, everything is embedded: no server is needed."""

    model_config = SettingsConfigDict(env_prefix="ESPALIER_", extra="ignore")

    home: Path = Field(
        default=Path.home() / ".espalier", description="data, cache, artifacts, embedded database and broker"
    )
    database_url: str | None = Field(default=None, description="default: SQLite in ESPALIER_HOME")
    broker_url: str | None = Field(default=None, description="default: folders in ESPALIER_HOME, no server")
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    upload_limit_bytes: int = Field(default=2**31, ge=1, description="of a network or a data set")
    accelerators: Path | None = Field(default=None, description="folder of accelerators for ZigZag, a folder each")

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'espalier.db'}"

    @property
    def is_broker_embedded(self) -> bool:
        return self.broker_url is None

    @property
    def broker_folder(self) -> Path:
        return self.home / "broker"

    @property
    def artifacts_folder(self) -> Path:
        return self.home / ARTIFACTS

    @property
    def uploads_folder(self) -> Path:
        return self.home / "uploads"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    return Settings()
