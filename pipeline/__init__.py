"""The phases of a distillation: data → views → teacher → cache-logits → student → report."""
