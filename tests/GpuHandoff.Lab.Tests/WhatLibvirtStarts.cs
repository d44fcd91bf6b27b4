namespace GpuHandoff.Lab.Tests;

/// <summary>
/// Debian's libvirt with a QEMU that opens the group, and us as its hook: what it does with a card that is handed over for a
/// domain, when it calls, and that every way in which a domain can end brings the card home.
/// </summary>
[Trait("Category", "Lab")]
[Collection(HostAtWork.Collection)]
public sealed class WhatLibvirtStarts(HostAtWork work)
{
    /// <summary>libvirtd looks for hooks when it starts, and later only where it found one (util/virhook.c:virHookInitialize).</summary>
    const string Install = """
        [ -e /etc/libvirt/hooks/qemu.d/gpu-handoff ] && exit 0
        mkdir -p /etc/libvirt/hooks/qemu.d
        ln -s "$(command -v gpu-handoff)" /etc/libvirt/hooks/qemu.d/gpu-handoff
        systemctl try-restart libvirtd
        """;

    const string Forget = """
        # By libvirt's files: virsh takes its time to come up, also where it has nothing to tell.
        for f in /run/libvirt/qemu/*.pid; do [ ! -e $f ] || virsh destroy $(basename $f .pid); done
        for f in /etc/libvirt/qemu/*.xml; do [ ! -e $f ] || virsh undefine $(basename $f .xml); done
        rm -f /etc/libvirt/hooks/qemu.d/zz-*
        """;

    const string Qemu = "cat /run/libvirt/qemu/vm1.pid";

    Host Host => work.Host;

    LabVm Vm => work.Vm;

    PluggedGpu Gpu => work.Gpu;

    string Address => Gpu.Functions[0].Address.ToString();

    [LabFact]
    public void A_domain_that_fails_to_start_leaves_the_card_at_home_wherever_it_fails() => Case(() =>
    {
        // QEMU itself ends at once.
        Define("vm1", more: "<qemu:commandline><qemu:arg value='-no-such-option'/></qemu:commandline>");
        Fails("vm1").ShouldContain("no-such-option");
        WasHandedOver();
        IsHome();

        // libvirt gives up before there is a QEMU.
        Define("vm1", devices: "<disk type='file' device='disk'><source file='/var/lib/no/such.img'/><target dev='sda' bus='sata'/></disk>");
        Fails("vm1").ShouldContain("such.img");
        WasHandedOver();
        IsHome();

        // Another hook says no, after us.
        Define("vm1");
        Vm.Run("printf '#!/bin/sh\\n[ \"$2\" != prepare ] || { echo not today >&2; exit 1; }\\n' > /etc/libvirt/hooks/qemu.d/zz-no; chmod +x /etc/libvirt/hooks/qemu.d/zz-no").Ok();
        Fails("vm1").ShouldContain("not today");
        WasHandedOver();
        IsHome();
        Evidence.Record(
            "a libvirt domain fails to start after the card was handed over (QEMU ends at once, a disk is missing, another hook says no)",
            "took the card back at libvirt's release (exit 0)", "libvirt's own reason; the card is home when virsh returns");
    });

    [LabFact]
    public void A_domain_has_the_card_until_it_ends_managed_or_not_and_a_second_one_does_not_start_nor_disturb_it() => Case(() =>
    {
        Define("vm1", managed: "no");
        Define("vm2", managed: "yes");
        foreach (var (first, second) in new[] { ("vm1", "vm2"), ("vm2", "vm1") })
        {
            Vm.Run($"virsh start {first}").Ok();
            // libvirt found it on vfio-pci, so it writes nothing, and has nothing to take back.
            (Host.Override(Gpu, 0), Host.Override(Gpu, 1)).ShouldBe(("vfio-pci", "vfio-pci"));
            Host.Modules().ShouldBe("");
            Vm.Run($"grep -o '\"pid\": *'$(cat /run/libvirt/qemu/{first}.pid) /var/lib/gpu-handoff/lease-{Address}.json").Ok();
            var before = Host.Picture();

            var refused = Fails(second);
            refused.ShouldContain("[gpu-handoff] ");
            refused.ShouldContain($"is lent to VM {first}");
            refused.ShouldContain("nothing was changed");

            Host.Picture().ShouldBe(before);
            Vm.Run($"virsh domstate {first}").Ok().Text.ShouldBe("running");
            IsLentTo(first);
            Vm.Run($"virsh destroy {first}").Ok();
            IsHome();
        }
        Evidence.Record(
            "two libvirt domains start with one GPU, in both orders", "refused the second before any write (exit 1); its release took nothing",
            "the name of the domain that has the card, in virsh's own error");
    });

    [LabFact]
    public void A_card_in_use_is_no_start_and_virsh_tells_who_has_it() => Case(() =>
    {
        Define("vm1", managed: "yes");
        var holder = Vm.Start("exec sleep 600 < /dev/nvidiactl");
        Vm.Run("for i in $(seq 50); do fuser /dev/nvidiactl 2> /dev/null && exit 0; sleep 0.1; done; exit 1").Ok();
        var before = Host.Picture();

        var refused = Fails("vm1");

        refused.ShouldContain("sleep (/dev/nvidiactl)");
        Host.Picture().ShouldBe(before);
        holder.Kill();
        Vm.Run("for i in $(seq 50); do fuser /dev/nvidiactl 2> /dev/null || exit 0; sleep 0.1; done; exit 1").Ok();
    });

    [LabFact]
    public void A_QEMU_that_is_killed_brings_the_card_home_also_where_libvirtd_was_away_at_that_moment() => Case(() =>
    {
        Define("vm1");
        Vm.Run("virsh start vm1").Ok();
        var killed = Vm.Run($"kill -KILL $({Qemu}); {AwaitHome}").Ok();
        IsHome();

        // A libvirtd that starts anew asks whether it may keep the domain: where we said no it would kill it.
        Vm.Run($"virsh start vm1").Ok();
        var pid = Vm.Run(Qemu).Ok().Text;
        Vm.Run("systemctl restart libvirtd").Ok();
        Vm.Run("virsh domstate vm1").Ok().Text.ShouldBe("running");
        Vm.Run(Qemu).Ok().Text.ShouldBe(pid);
        IsLentTo("vm1");

        Vm.Run($"systemctl stop libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket; kill -KILL {pid}; while [ -e /proc/{pid} ]; do sleep 0.1; done").Ok();
        Vm.Run($"systemctl start libvirtd.socket libvirtd-ro.socket; virsh list --all; {AwaitHome}").Ok();
        IsHome();
        Evidence.Record(
            "the QEMU of a libvirt domain is killed", "took the card back at libvirt's release, also where libvirtd came back only later",
            "the domain is shut off, the card is home", $"home {killed.Took.TotalSeconds:0} s after the signal");
    });

    [LabFact]
    public void Units_that_had_to_stop_for_a_domain_run_again_after_it() => Case(
        () =>
        {
            Vm.Run("printf 'users:\\n  units: restart\\n' > /etc/gpu-handoff.yaml; systemctl start nvidia-persistenced folding").Ok();
            Vm.Run("for i in $(seq 50); do [ $(fuser /dev/nvidia0 2> /dev/null | wc -w) = 2 ] && exit 0; sleep 0.1; done; exit 1").Ok();
            var before = Host.Record();
            Define("vm1", managed: "yes");

            Vm.Run("virsh start vm1").Ok();
            Vm.Run("systemctl is-active nvidia-persistenced folding").Text.ReplaceLineEndings(" ").ShouldBe("inactive inactive");
            Vm.Run("virsh destroy vm1").Ok();

            Vm.Run("for i in $(seq 50); do [ $(fuser /dev/nvidia0 2> /dev/null | wc -w) = 2 ] && exit 0; sleep 0.1; done; exit 1").Ok();
            Host.Record().ShouldBe(before);
        },
        ofUsers: true);

    const string AwaitHome = "for i in $(seq 300); do ls /var/lib/gpu-handoff/lease-* > /dev/null 2>&1 || exit 0; sleep 0.1; done; exit 1";

    void Case(Action act, bool ofUsers = false, [System.Runtime.CompilerServices.CallerMemberName] string name = "")
    {
        void Tidily()
        {
            Vm.Run(Install).Ok();
            try
            {
                act();
            }
            finally
            {
                Vm.Run(Forget);
            }
        }

        if (ofUsers)
            work.CaseOfUsers(Tidily, name);
        else
            work.Case(Tidily, name);
    }

    /// <summary>A domain with the card and its sound, and nothing else: neither disk nor screen, and what it boots is its firmware.</summary>
    void Define(string name, string managed = "no", string devices = "", string more = "")
    {
        var functions = string.Concat(Gpu.Functions.Select(f => $"""
              <hostdev mode='subsystem' type='pci' managed='{managed}'>
                <source><address domain='0x{f.Address.Domain:x4}' bus='0x{f.Address.Bus:x2}' slot='0x{f.Address.Device:x2}' function='0x{f.Address.Function:x}'/></source>
              </hostdev>

            """));
        Vm.Run($"""
            cat > /run/{name}.xml << 'END'
            <domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
              <name>{name}</name>
              <memory unit='MiB'>64</memory>
              <vcpu>1</vcpu>
              <os><type arch='x86_64' machine='q35'>hvm</type></os>
              <devices>
                <emulator>/usr/bin/qemu-system-x86_64</emulator>
                <controller type='usb' model='none'/>
                {devices}
            {functions}
                <memballoon model='none'/>
              </devices>
              {more}
            </domain>
            END
            virsh undefine {name} > /dev/null 2>&1; virsh define /run/{name}.xml
            """).Ok();
    }

    /// <summary>What virsh says of a start that fails.</summary>
    string Fails(string name)
    {
        var started = Vm.Run($"virsh start {name}");
        started.ExitCode.ShouldBe(1, started.ToString());
        Vm.Run($"virsh domstate {name}").Ok().Text.ShouldBe("shut off");
        return started.Errors;
    }

    /// <summary>Or a start that failed before our hook would show nothing.</summary>
    void WasHandedOver() =>
        Vm.Run($"journalctl --quiet --no-pager --identifier=gpu-handoff --since=-20s | grep 'hand {Gpu.Functions[0].Address.Slot}.* over to vfio-pci'").Ok();

    void IsLentTo(string name)
    {
        Vm.Run($"grep -o '\"manager\": *\"libvirt\", *\"id\": *\"{name}\"' /var/lib/gpu-handoff/lease-{Address}.json").Ok();
        (Host.Driver(Gpu, 0), Host.Driver(Gpu, 1)).ShouldBe(("vfio-pci", "vfio-pci"));
    }

    /// <summary>The rest of what a machine at home looks like is <see cref="Host.Case"/>'s.</summary>
    void IsHome()
    {
        (Host.Driver(Gpu, 0), Host.Driver(Gpu, 1)).ShouldBe(("nvidia", "snd_hda_intel"));
        Vm.Run("ls /var/lib/gpu-handoff/lease-*").ExitCode.ShouldNotBe(0, "no lease may be left");
    }
}
