"""event-ssm: S5 state spaces on asynchronous tokens (arXiv 2404.18508)."""

from models.event_ssm.config import EventSSMConfig
from models.event_ssm.network import EventSSM

__all__ = ["EventSSM", "EventSSMConfig"]
