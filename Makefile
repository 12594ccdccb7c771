# Two commands do everything: `make demo` and `make test`. See README.md.

.DEFAULT_GOAL := help

CARGO ?= cargo
XTASK = $(CARGO) run --quiet -p xtask --
TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
AGENT := target/static/msb-agent
ROOTFS := target/rootfs
CFLAGS_STRICT := -std=c11 -Wall -Wextra -Wpedantic -Werror -O1 -g

.PHONY: help demo demo-vm test check bench fuzz build agent install uninstall deb setup setup-test \
	abi abi-baseline lint test-rust test-c test-go test-node test-python \
	test-install test-gvisor test-vm test-krun clean

## help: this list
help:
	@sed -n 's/^## //p' Makefile

## demo: build everything and run a command in a sandbox through the C library
demo: setup build $(ROOTFS)
	@echo "== compiling examples/c/stream.c against include/microsandbox.h"
	@cc $(CFLAGS_STRICT) -Iinclude examples/c/stream.c -o target/stream \
		-Ltarget/release -lmicrosandbox -Wl,-rpath,'$$ORIGIN/release'
	@scripts/demo $(ROOTFS)

## demo-vm: the same in a virtual machine, emulated where the processor cannot do better
demo-vm: setup build $(ROOTFS)
	@scripts/setup vm
	@cc $(CFLAGS_STRICT) -Iinclude examples/c/stream.c -o target/stream \
		-Ltarget/release -lmicrosandbox -Wl,-rpath,'$$ORIGIN/release'
	@scripts/demo-vm $(ROOTFS)

## test: every test
test: setup-test lint test-rust test-c test-go test-node test-python test-install \
		test-gvisor test-vm
	@echo "== all tests passed"

## check: the deep run: every test, sanitizers, valgrind, kills, soak, and fuzzers where they are available
check: setup-test test build
	@$(XTASK) check

## bench: ratios against a baseline in the same run, written to benches/RESULTS.md
bench: setup-test
	@$(XTASK) bench

## fuzz: each fuzz target for MSB_FUZZ_SECONDS (60); needs nightly and cargo-fuzz
fuzz:
	@$(XTASK) fuzz

## build: library, agent, runner and msb, as `make install` installs them
build: agent
	@echo "== building library, runner and msb (release)"
	@$(CARGO) build --release --quiet -p libmicrosandbox -p msb-runner -p msb-cli
	@ln -sf libmicrosandbox.so target/release/libmicrosandbox.so.0

## install: what `make build` builds; PREFIX (/usr/local), DESTDIR, LIBDIR as usual
install: build
	@scripts/install

## uninstall: what `make install` installed
uninstall:
	@scripts/install --uninstall

## deb: a Debian package in target/deb
deb: setup-test build
	@scripts/deb

agent: setup
	@echo "== building the static agent"
	@RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --quiet -p msb-agent \
		--features static --profile agent --target $(TARGET) --target-dir target/agent
	@mkdir -p $(dir $(AGENT))
	@cmp -s target/agent/$(TARGET)/agent/msb-agent $(AGENT) || \
		install -m 755 target/agent/$(TARGET)/agent/msb-agent $(AGENT)

$(ROOTFS): | setup
	@echo "== making a root filesystem from busybox in $@"
	@scripts/rootfs $@

setup:
	@scripts/setup build

setup-test:
	@scripts/setup test
	@scripts/runsc

## abi: generate the header, and all else that repeats the C ABI, from src
abi:
	@$(XTASK) abi

## abi-baseline: take the header's ABI as the one to keep; scripts/abi says when that is right
abi-baseline: setup-test
	@scripts/abi --renew

lint:
	@echo "== formatting and lints"
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	@$(CARGO) clippy --quiet -p msb-runner --no-default-features --features system-libkrun -- -D warnings
	@$(XTASK) abi --check

test-rust: agent $(ROOTFS)
	@echo "== building runner and msb (debug)"
	@$(CARGO) build --quiet --workspace
	@echo "== Rust tests"
	@$(CARGO) test --quiet --workspace

test-c: agent $(ROOTFS)
	@$(XTASK) test-c
	@echo "== the conformance cases in C"
	@$(XTASK) conformance c

test-go: agent
	@echo "== the Go SDK"
	@$(XTASK) test-go
test-node: agent
	@echo "== the package for Node"
	@$(XTASK) test-node
test-python: agent
	@echo "== the Python package"
	@$(XTASK) test-python

test-install: agent $(ROOTFS)
	@$(CARGO) build --quiet --workspace
	@scripts/test-install

# What depends on the guest, on gVisor.
test-gvisor: agent $(ROOTFS)
	@$(CARGO) build --quiet --workspace
	@scripts/test-gvisor

# Everything that depends on the guest, in machines that are emulated.
test-vm: agent $(ROOTFS)
	@$(XTASK) test-vm qemu

## test-krun: the same on libkrun, where KVM can be used; needs MSB_LIBKRUNFW
test-krun: setup-test agent $(ROOTFS)
	@$(XTASK) test-vm krun

clean:
	@$(CARGO) clean
