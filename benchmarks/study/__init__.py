"""What offline distillation costs against a live teacher, and what its classic mistake costs."""
