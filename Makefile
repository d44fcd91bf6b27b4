# One word a job; `make help` lists them. DOTNET may name another dotnet.
DOTNET   ?= dotnet
SOLUTION := GpuHandoff.slnx
BINARY   := artifacts/publish/gpu-handoff
UNIT     := tests/GpuHandoff.Core.Tests tests/GpuHandoff.Linux.Tests tests/GpuHandoff.Cli.Tests
SOURCES   = $(shell find src -name '*.cs' -o -name '*.csproj' -o -name '*.txt') Directory.Build.props Directory.Packages.props src/Directory.Build.props

.DEFAULT_GOAL := help
.PHONY: help build demo test unit format lab soak reliability bench bench-holders bench-last-look publish install uninstall clean

help:		## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build:		## Compile everything; warnings are errors
	$(DOTNET) build $(SOLUTION) --nologo -v quiet

demo:		## Show the main job on a simulated host: no root, no GPU
	@$(DOTNET) build src/GpuHandoff --nologo -v quiet -f net10.0
	@$(DOTNET) run --project src/GpuHandoff --no-build -f net10.0 -- demo

test:		## Install what the tests need, then run every test, the lab's too
	lab/install-needs
	rm -rf artifacts/results
	$(MAKE) build format unit lab
	@packaging/tally

format:		## Check the formatting
	$(DOTNET) format $(SOLUTION) --no-restore --verify-no-changes

unit: build	## Run the tests that need no lab
	@set -e; for project in $(UNIT); do $(DOTNET) test $$project --no-build --nologo --filter 'Category!=Soak' \
		--results-directory artifacts/results --logger "trx;LogFileName=$$(basename $$project).trx"; done

SOAK_RUNS ?= 100000
soak: build	## Random machines, faults, crashes and company: SOAK_RUNS of them
	SOAK_RUNS=$(SOAK_RUNS) $(DOTNET) test tests/GpuHandoff.Core.Tests --no-build --nologo --filter 'Category=Soak' --logger 'console;verbosity=detailed'

reliability:	## Write docs/reliability.md from what the last tests and the last soak have shown
	packaging/reliability > docs/reliability.md.new && mv docs/reliability.md.new docs/reliability.md

lab: build publish	## Run the real NVIDIA modules in QEMU; the first run builds the image
	packaging/lab-tests

bench: build publish	## Measure in the lab and write docs/performance.md
	$(DOTNET) run --project bench/GpuHandoff.Bench --no-build

bench-holders: build	## Measure the search for a GPU's users alone, on this machine
	$(DOTNET) run --project bench/GpuHandoff.Bench --no-build -- holders

bench-last-look: build	## Measure the last look before an unbind and the memory of a search, on this machine
	$(DOTNET) run --project bench/GpuHandoff.Bench --no-build -- last-look

publish: $(BINARY)	## Make the one native binary that a host needs
$(BINARY): $(SOURCES) packaging/publish
	packaging/publish $@

PREFIX ?= /usr/local
UNITDIR ?= /etc/systemd/system
UNITS  := gpu-handoff-recover.service gpu-handoff-recover.timer
TARGET := gpu-handoff-host@.target
EXAMPLE := ollama.service.d/gpu-handoff.conf
EXAMPLES = $(DESTDIR)$(PREFIX)/share/doc/gpu-handoff/examples
install: publish	## Install the binary, the man page, the completions, the examples and the units
	install -D -m 0755 $(BINARY) $(DESTDIR)$(PREFIX)/sbin/gpu-handoff
	install -D -m 0644 packaging/gpu-handoff.8 $(DESTDIR)$(PREFIX)/share/man/man8/gpu-handoff.8
	install -D -m 0644 packaging/completions/gpu-handoff.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/gpu-handoff
	install -D -m 0644 packaging/completions/gpu-handoff.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_gpu-handoff
	install -D -m 0644 packaging/completions/gpu-handoff.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/gpu-handoff.fish
	install -D -m 0644 packaging/gpu-handoff.yaml $(EXAMPLES)/gpu-handoff.yaml
	install -D -m 0644 packaging/systemd/examples/$(EXAMPLE) $(EXAMPLES)/$(EXAMPLE)
	@for unit in $(UNITS) $(TARGET); do \
		echo "install $(DESTDIR)$(UNITDIR)/$$unit"; \
		install -d $(DESTDIR)$(UNITDIR) && \
		sed 's|@PREFIX@|$(PREFIX)|' packaging/systemd/$$unit > $(DESTDIR)$(UNITDIR)/$$unit && \
		chmod 0644 $(DESTDIR)$(UNITDIR)/$$unit || exit 1; done
	@echo "to have crashes ended and lent GPUs taken home by themselves: systemctl enable --now $(UNITS)"
	@echo "to give a VM of Proxmox the GPU: gpu-handoff attach VMID"
	@echo "to have services come and go with a GPU: $(EXAMPLES)/$(EXAMPLE)"

uninstall:	## Remove what install put there
	rm -f $(DESTDIR)$(PREFIX)/sbin/gpu-handoff $(DESTDIR)$(PREFIX)/share/man/man8/gpu-handoff.8
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/gpu-handoff
	rm -f $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_gpu-handoff
	rm -f $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/gpu-handoff.fish
	-[ -n "$(DESTDIR)" ] || systemctl disable --quiet --now $(UNITS)
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,$(UNITS) $(TARGET))
	rm -f $(DESTDIR)$(UNITDIR)/multi-user.target.wants/$(TARGET:@.target=@*.target)
	rm -f $(EXAMPLES)/gpu-handoff.yaml $(EXAMPLES)/$(EXAMPLE)
	-rmdir -p --ignore-fail-on-non-empty $(dir $(EXAMPLES)/$(EXAMPLE)) 2>/dev/null

clean:		## Remove everything that was built
	rm -rf artifacts
