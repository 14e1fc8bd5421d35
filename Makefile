# Every target works in a fresh clone, as root on Debian or Ubuntu with Rust and Go.

.PHONY: demo test test-matrix test-kubernetes fmt lint

# IMAGE=debian shows a real image of some hundred MB instead of a small one.
demo:
	tools/demo $(IMAGE)

test:
	tools/test

test-matrix:
	tools/test-matrix

test-kubernetes:
	tools/test-kubernetes

fmt:
	cargo fmt
	gofmt -w tools tests/conformance

lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	test -z "$$(gofmt -l tools tests/conformance)"
	cd tests/conformance && go vet ./...
	if command -v cargo-deny >/dev/null; then cargo deny check; fi
	if command -v shellcheck >/dev/null; then grep -lr '^#!.*bash' tools .ci | xargs shellcheck; fi
