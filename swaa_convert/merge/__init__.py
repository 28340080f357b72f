"""Merging LoRA adapters while converting, module by module; peft does the arithmetic.

adapter (what was given) -> carried (the recipe beside it) -> model (the source's structure, without data) ->
targets (what each key touches) -> peft_merge (a few modules at a time) -> merger (what the shards' writer asks).
"""
