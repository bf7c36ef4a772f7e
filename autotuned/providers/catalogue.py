"""The default candidates of the providers that serve MLX weights, largest first. Data, nothing else."""

from __future__ import annotations

from autotuned.providers.interface import CatalogueEntry

MLX_CATALOGUE = (
    CatalogueEntry("mlx-community/Qwen2.5-32B-Instruct-4bit", 32.0, 17_000_000_000),
    CatalogueEntry("mlx-community/Qwen2.5-14B-Instruct-4bit", 14.0, 8_000_000_000),
    CatalogueEntry("mlx-community/Qwen2.5-Coder-7B-Instruct-4bit", 7.0, 4_000_000_000),
    CatalogueEntry("mlx-community/Llama-3.2-3B-Instruct-4bit", 3.0, 1_800_000_000),
    CatalogueEntry("mlx-community/Llama-3.2-1B-Instruct-4bit", 1.0, 700_000_000),
)
