"""The only room that imports ComfyUI's internals (comfy.*, folder_paths, server); the rest of the pack asks here."""
