"""The phases of a distillation: data → views → teacher → cache-logits → student → report."""

from __future__ import annotations

if __name__ == "pipeline":  # found by its folder's name, inside the repository
    from decant.folder_names import use_import_package

    use_import_package("pipeline")
