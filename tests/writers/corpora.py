"""Files as operators publish them: units, presets and llama-swap configurations, in many habits of writing."""

from __future__ import annotations

COMMANDS = (
    "/usr/bin/llama-server -m /srv/models/qwen2.5-7b-q4_k_m.gguf --host 0.0.0.0 --port 8080",
    "/usr/local/bin/llama-server --model /opt/models/llama-3.2-3b.gguf -c 8192 -ngl 99 -fa on",
    "/opt/llama.cpp/build/bin/llama-server -m %h/models/mistral.gguf --ctx-size 32768 --parallel 4",
    "/usr/bin/llama-server -hf bartowski/Qwen2.5-14B-Instruct-GGUF:Q4_K_M --jinja --no-webui",
    "/usr/bin/llama-server --model=/m/a.gguf --ctx-size=4096 --parallel=2 --api-key-file=/etc/llama/keys",
    "/usr/bin/llama-server \\\n    --model /m/a.gguf \\\n    --n-gpu-layers 99 \\\n    -c 16384 \\\n    -np 2",
    "/usr/bin/llama-server \\\n  -m /m/a.gguf \\\n# more slots for the office\n  -np 8 \\\n  --metrics",
    '/usr/bin/llama-server -m "/m/my models/a.gguf" --alias "the model" -ctk q8_0 -ctv q8_0',
    "/usr/bin/llama-server -m '/m/a b.gguf' --chat-template-kwargs '{\"enable_thinking\": false}'",
    "/usr/bin/numactl --cpunodebind=0 /usr/bin/llama-server -m /m/a.gguf -t 16",
    "-/usr/bin/llama-server -m /m/a.gguf --cache-type-k q8_0 --cache-type-v q8_0 --log-file /tmp/x",
    "/usr/bin/llama-server -m ${MODEL} -c $CONTEXT --port ${PORT} --threads 8",
    "/usr/bin/llama-server -m /m/a.gguf -np 1 -np 2 -c 2048 --mlock --no-mmap",
)
SETTINGS = (
    "Restart=always",
    "Restart=on-failure\nRestartSec=5\nUser=llama\nGroup=llama",
    "Environment=CUDA_VISIBLE_DEVICES=0\nEnvironmentFile=-/etc/default/llama\nRestart=always",
    "Type=exec\nNice=-5\nLimitMEMLOCK=infinity\nProtectSystem=strict\nPrivateTmp=yes",
)
HEADS = (
    "[Unit]\nDescription=llama.cpp\nAfter=network-online.target\n\n",
    "# managed by hand, ask before you change it\n[Unit]\nDescription=LLM\n\n",
    "",
)
UNITS = tuple(
    f"{HEADS[number % 3]}[Service]\n{SETTINGS[number % 4]}\nExecStart={line}\n"
    f"ExecStartPre=/bin/echo ExecStart=no\n\n[Install]\nWantedBy={wanted}\n"
    for wanted in ("default.target", "multi-user.target")
    for number, line in enumerate(COMMANDS)
)

ENTRIES = (
    "model = /srv/models/a.gguf\nctx-size = 8192\nparallel = 2",
    "hf-repo = bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M\njinja = true",
    "model=/m/a.gguf\nc=4096\nnp=1\nngl=99",
    "; the office's model\nmodel = /m/a.gguf\n\n# slots\nnp = 4\n",
    "model = /m/a.gguf\nctk = q8_0\nctv = q8_0\nflash-attn = on",
    "model = /m/a.gguf\ncache-type-k = q4_0\ncache-type-v = q4_0\nno-kv-unified = true",
    "model = /m/a b.gguf\ntemp = 0.7\ntop-p = 0.95\nmmproj = /m/mm.gguf",
    "api-key = not-yours\nmodel = /m/a.gguf\nload-on-startup = true",
    "LLAMA_ARG_CTX_SIZE = 2048\nmodel = /m/a.gguf\nstop-timeout = 10",
)
PRESETS = tuple(
    frame.format(entries=entries).replace("\n", ending)
    for entries in ENTRIES
    for frame, ending in (
        (
            "version = 1\n\n[*]\nnp = 3\nc = 1024\n\n[mine]\n{entries}\n\n[other]\nnp = 7\nc = 9\n",
            "\n",
        ),
        ("[other]\nparallel = 9\n[mine] ; here\n{entries}", "\n"),
        ("[mine]\n{entries}\n", "\r\n"),
    )
)

CMDS = (
    "cmd: llama-server -m /m/a.gguf --port ${PORT}",
    'cmd: "llama-server -m /m/a.gguf -c 8192 --port ${PORT}"',
    "cmd: 'llama-server -m /m/a.gguf --parallel 2 --port ${PORT}'",
    "cmd: |\n      llama-server --port ${PORT}\n      -m /m/a.gguf\n      -c 16384 -np 4",
    "cmd: >\n      /usr/bin/llama-server\n      --port ${PORT} --model /m/a.gguf\n      --ctx-size 8192",
    "cmd: |\n      /app/llama-server \\\n      --port ${PORT} \\\n      -m /m/a.gguf \\\n      -ctk q8_0 -ctv q8_0",
    "cmd: |-\n      # the office's\n      ${server}\n      -m /m/a.gguf\n      --jinja",
    "cmd: llama-server -m /m/a.gguf\n      --port ${PORT} -ngl 99\n      -np 1",
    "cmd: >-\n      docker run --rm -p ${PORT}:8080 ghcr.io/ggml-org/llama.cpp:server\n      -m /m/a.gguf",
)
SWAPS = tuple(
    frame.replace("CMD", cmd)
    for cmd in CMDS
    for frame in (
        "healthCheckTimeout: 60\nmacros:\n  server: llama-server\nmodels:\n  mine:\n    CMD\n    ttl: 300\n"
        "  other:\n    cmd: llama-server -np 9 --api-key sk-of-somebody-else0000\n",
        '# my models\nmodels:\n  "other":\n    cmd: vllm serve x\n  "mine":\n    concurrencyLimit: 2  # slots\n'
        "    CMD\n    aliases: [a, b]\n    env:\n      - CUDA_VISIBLE_DEVICES=0\ngroups:\n  g:\n    members: [mine]\n",
        "models:\n  mine:\n    proxy: http://127.0.0.1:${PORT}\n    CMD\n    concurrencyLimit: 8\n",
    )
)
