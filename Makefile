# Two commands do nearly everything on a fresh Debian 12: `make demo` and `make test`.
# Each sets up what it needs: Debian packages (as root; otherwise it says which), and .venv from PyPI.

PYTHON ?= python3
BIN := .venv/bin

# What the lab's kernel, its network and the peers need, and a compiler for the library that gives a guest its own time.
PACKAGES := python3-venv user-mode-linux kmod iproute2 iptables nftables ipvsadm systemd procps gcc libc6-dev
# The real programs that tests put beside ours. Installing them starts none.
PEERS := keepalived ldirectord haproxy prometheus prometheus-node-exporter chromium-headless-shell openssl \
  redis-server dnsmasq-base bird2 conntrackd vsftpd lftp groff-base

# Another kernel than the user-mode one: the emulator, and the keys by which Debian's packages are checked.
QEMU := qemu-system-x86 debian-archive-keyring

.PHONY: help setup packages demo test test-all test-packages test-kernels check format bench fuzz man deb rpm pyz clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo    race LVS as people run it against feedback, on a real kernel, live: table and picture'
	@echo 'make test    format, lint, types, unit, contract and lab tests on the real kernel, in minutes'
	@echo 'make test-all  the same, and then the tests that take longer: hostile conditions on the real kernel'
	@echo 'make test-packages  builds the Debian packages, the RPMs and the single file, and tries them (as root)'
	@echo 'make test-kernels  contract tests and scenarios on several kernels of Debian, in QEMU: hours; docs/kernels.md'
	@echo 'make check   the quick part of it: format, lint, types, import rules, unit tests'
	@echo 'make bench   what the agent, the pipeline and weight updates cost, side by side with others'
	@echo 'make deb     the Debian packages in dist/, built and then tried out in scratch roots (as root)'
	@echo 'make rpm     both packages as RPM, and make pyz the agent as one file'
	@echo 'make fuzz    look for inputs that break a decoder, and for histories that break the pipeline, SECONDS=600 each'
	@echo 'make man     the manual pages, from the commands and docs/configuration.md'
	@echo 'make setup   only what these need: Debian packages and .venv'

setup: packages .venv/ready

packages:
	@missing=$$(for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || printf '%s ' $$p; done); \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" != 0 ]; then echo "missing Debian packages: as root, apt-get install $$missing"; exit 1; fi; \
	  echo "installing $$missing"; \
	  if [ ! -e /usr/sbin/policy-rc.d ]; then \
	    trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
	    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
	  fi; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	fi

.venv/ready: pyproject.toml | packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or later is needed: make PYTHON=...'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -e '.[dev]'
	$(BIN)/python -m compileall -q -j 0 .venv/lib feedback # pip would use one core
	@touch $@

demo: setup
	$(BIN)/feedback lab demo

test: PACKAGES += $(PEERS) $(QEMU)
test: check
	$(BIN)/pytest -m 'lab and not long and not kernels'

test-all: test
	$(BIN)/pytest -n $$(($$(nproc) + 1)) --dist worksteal --hypothesis-profile=thorough -m '(long or hypothesis) and not lab'
	$(BIN)/pytest -m 'lab and long and not kernels'

# Building them brings their libraries from PyPI; trying them mounts overlays of this machine's root, so as root.
test-packages: setup
	$(BIN)/pytest -m packages

# Where it stops, it goes on the next time; `make clean` forgets what has run.
test-kernels: PACKAGES += $(QEMU)
test-kernels: setup
	$(BIN)/pytest -m kernels
	$(BIN)/python -m tests.kernels

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	@echo $(BIN)/mypy; { [ -d tests/__pycache__ ] || $(BIN)/pytest --collect-only -q >/dev/null 2>&1; } & \
	$(BIN)/mypy; status=$$?; wait; exit $$status # in a fresh clone each of pytest's workers would rewrite all assertions
	$(BIN)/pytest -n $$(($$(nproc) + 1)) --dist worksteal -m 'not lab and not long and not packages' # one more than cores: many tests wait

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: PACKAGES += prometheus-node-exporter
bench: setup
	$(BIN)/python -m bench

# Needs PyPI for the libraries that the package brings along. DEB_ROOT names a Debian 12 tree to try it out on; else this
# machine's own, under an overlay: nothing is installed here.
deb:
	@missing=$$(for p in build-essential debhelper python3-venv; do dpkg -s $$p >/dev/null 2>&1 || printf '%s ' $$p; done); \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" != 0 ]; then echo "missing Debian packages: as root, apt-get install $$missing"; exit 1; fi; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	fi
	@rm -rf build/deb && mkdir -p build/deb/lvs-feedback dist
	@tar -c --exclude-vcs --exclude=./.venv --exclude=./build --exclude=./dist --exclude=./lab-output \
	  --exclude=__pycache__ --exclude='.*_cache' --exclude=.hypothesis . .gitignore | tar -x -C build/deb/lvs-feedback
	cd build/deb/lvs-feedback && dpkg-buildpackage --build=binary --no-sign >../build.log 2>&1 || { tail -40 ../build.log; exit 1; }
	@cp build/deb/lvs-feedback_*.deb build/deb/lvs-feedback-agent_*.deb dist/
	for name in lvs-feedback lvs-feedback-agent; do \
	  debian/tests/installation dist/$${name}_$$(dpkg-parsechangelog -S Version)_$$(dpkg --print-architecture).deb $(DEB_ROOT) || exit 1; \
	done

# Debian's rpmbuild, or a distribution's own. The packages run on interpreters that need not be here.
AGENT_PYTHON ?= 3.9
DIRECTOR_PYTHON ?= 3.11
rpm: PACKAGES += rpm
rpm: setup
	@rm -rf build/rpm && mkdir -p build dist
	rpmbuild -bb --define "_topdir $$PWD/build/rpm" --define "source $$PWD" --define "build_python $$PWD/$(BIN)/python" \
	  --define "agent_python $(AGENT_PYTHON)" --define "director_python $(DIRECTOR_PYTHON)" \
	  packages/lvs-feedback.spec >build/rpm.log 2>&1 || { tail -40 build/rpm.log; exit 1; }
	@cp build/rpm/RPMS/*/*.rpm dist/

pyz: setup
	$(BIN)/python -m packages.pyz dist/feedback-agent.pyz

SECONDS ?= 600
fuzz: setup
	$(BIN)/python -m tests.fuzz $(SECONDS)
	$(BIN)/python -m tests.pipeline --seconds $(SECONDS)

man: setup
	$(BIN)/python -m feedback.cli.manual docs/configuration.md man

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist lab-output
