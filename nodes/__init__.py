"""The pack's Python, one package per room: nodes.py is what the editor shows, host/ is all that touches ComfyUI."""
