"""The provider's configuration file as text: read, edited without touching a foreign byte, set against another."""
