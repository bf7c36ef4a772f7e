"""Who manages a live server: one file a service manager."""
