"""Engines, which run networks over samples: in this process, or in Ray workers."""
