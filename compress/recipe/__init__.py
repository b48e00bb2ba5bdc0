"""Recipes: everything that a run decided, as TOML, and such a file as a run."""

from compress.recipe.form import read_recipe, with_settings
from compress.recipe.requests import request_of, settings_of
from compress.recipe.resolved import SCHEMA, finetune_recipe, prune_recipe, to_toml
from compress.recipe.template import template

__all__ = [
    "SCHEMA",
    "finetune_recipe",
    "prune_recipe",
    "read_recipe",
    "request_of",
    "settings_of",
    "template",
    "to_toml",
    "with_settings",
]
