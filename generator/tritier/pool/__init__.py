"""A local store of models, sub-models, plans and profiles, by content hash."""

from tritier.pool.store import KINDS, Garbage, Kind, Pool, PoolEntry

__all__ = ["KINDS", "Garbage", "Kind", "Pool", "PoolEntry"]
