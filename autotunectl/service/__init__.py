"""The agent as a program of this machine: installed, started, stopped, and looked at from outside."""
