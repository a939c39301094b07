"""The `dxai` command."""
