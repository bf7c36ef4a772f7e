"""The model hub: one session, and the helper process that downloads."""
