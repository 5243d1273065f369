"""Who runs networks over samples: this process, or workers on Ray."""
