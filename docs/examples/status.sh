#!/bin/sh
# What the agent is doing, from a shell; the versions of nc differ in when they return, this one does everywhere.
printf '%s\n' '{"jsonrpc":"2.0","id":1,"method":"status"}' | autotunectl dial-stdio | head -n 1
