using System.Diagnostics;
using System.Text.Json;

namespace GpuHandoff.Cli.Tests;

/// <summary>attach, detach and vms on a recorded machine that has a Proxmox node's files besides.</summary>
public sealed class ProxmoxOfAMachine : IDisposable
{
    readonly string _root = Directory.CreateTempSubdirectory("gpu-handoff-proxmox-").FullName;

    public ProxmoxOfAMachine()
    {
        // By cp, which takes links for links.
        using var copy = Process.Start("cp", ["-a", $"{Path.Combine(Tool.Repository, "tests", "machines", "rtx4090-single", "tree")}/.", _root]);
        copy.WaitForExit();
        copy.ExitCode.ShouldBe(0);
        Put("etc/pve/nodes/pve1/qemu-server/101.conf", "bios: ovmf\nmachine: q35\nname: windows\n");
        Put("etc/pve/nodes/pve1/qemu-server/105.conf", "hookscript: local:snippets/gpu-handoff\nhostpci1: 01:00.0\nname: linux\n");
        Put("etc/pve/nodes/pve1/lxc/107.conf", "dev0: /dev/nvidia0\nhostname: media\n");
        Put("etc/pve/storage.cfg", "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl\n");
        Put("proc/sys/kernel/hostname", "pve1\n");
        File.CreateSymbolicLink(Path.Combine(_root, "etc/pve/local"), "nodes/pve1");
        File.CreateSymbolicLink(Path.Combine(_root, "etc/pve/qemu-server"), "nodes/pve1/qemu-server");
        File.CreateSymbolicLink(Path.Combine(_root, "etc/pve/lxc"), "nodes/pve1/lxc");
        Directory.CreateDirectory(Path.Combine(_root, "var/lib/vz"));
    }

    public void Dispose() => Directory.Delete(_root, recursive: true);

    void Put(string name, string text)
    {
        var file = Path.Combine(_root, name);
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.WriteAllText(file, text);
    }

    [Fact]
    public void The_steps_of_an_attach_are_printed_with_their_undo()
    {
        var (exit, output, error) = Tool.Run("attach", "101", "--dry-run", "--root", _root);
        exit.ShouldBe(0, error);
        error.ShouldBeEmpty();
        output.ShouldStartWith("""
            plan: attach 0000:01:00 (NVIDIA GeForce RTX 4090) to VM 101 (windows)
            snippet
               1. make the folder /var/lib/vz/snippets
                  undo: remove the empty folder /var/lib/vz/snippets
               2. link /var/lib/vz/snippets/gpu-handoff → /usr/local/sbin/gpu-handoff
                  undo: remove the link /var/lib/vz/snippets/gpu-handoff
            vm
               3. qm set 101 --hostpci0 0000:01:00,pcie=1 --hookscript local:snippets/gpu-handoff
                  undo: qm set 101 --delete hookscript,hostpci0

            """);
        output.ShouldContain("note: VM 105 (linux) has the card too (hostpci1)");
        output.ShouldContain("note: storage local does not list snippets");
    }

    [Fact]
    public void As_data_a_plan_has_the_kinds_of_its_steps()
    {
        var (exit, output, _) = Tool.Run("attach", "101", "--dry-run", "--json", "--root", _root);
        exit.ShouldBe(0);
        using var json = JsonDocument.Parse(output);
        json.RootElement.GetProperty("result").GetString().ShouldBe("planned");
        json.RootElement.GetProperty("plan").GetProperty("phases").EnumerateArray().SelectMany(p => p.GetProperty("steps").EnumerateArray())
            .Select(s => s.GetProperty("step").GetString()).ShouldBe(["make-folder", "link-program", "set-vm"]);
    }

    [Theory]
    [InlineData("there is no VM 999", "attach", "999")]
    [InlineData("there is no GPU at 0000:09:00", "attach", "101", "--gpu", "09:00")]
    [InlineData("there is no PCI mapping pool", "attach", "101", "--mapping", "pool")]
    [InlineData("107 is a container", "attach", "107")]
    [InlineData("gpu-handoff attached nothing to VM 105", "detach", "105")]
    public void What_cannot_be_is_refused_with_a_reason_and_a_hint(string reason, params string[] arguments)
    {
        var (exit, output, error) = Tool.Run([.. arguments, "--dry-run", "--root", _root]);
        exit.ShouldBe(1);
        output.ShouldBeEmpty();
        error.ShouldContain(reason);
        error.ShouldContain("hint: ");
        error.ShouldEndWith("nothing was changed\n");
    }

    [Theory]
    [InlineData("99")]
    [InlineData("windows")]
    [InlineData("-1")]
    public void What_is_no_number_of_a_vm_is_a_wrong_command_line(string vm) => Tool.Run("attach", vm, "--dry-run", "--root", _root).Exit.ShouldBe(2);

    [Fact]
    public void A_configuration_of_five_megabytes_of_garbage_is_an_error_and_hides_no_other_vm()
    {
        Put("etc/pve/nodes/pve1/qemu-server/102.conf", new string('x', 5_000_000));
        var (exit, _, error) = Tool.Run("attach", "102", "--dry-run", "--root", _root);
        exit.ShouldBe(1);
        error.ShouldContain("/etc/pve/qemu-server/102.conf");
        var listed = Tool.Run("vms", "--root", _root);
        listed.Exit.ShouldBe(0);
        listed.Out.ShouldContain("VM 105 (linux)");
        listed.Err.ShouldContain("warning: /etc/pve/qemu-server/102.conf: ");
    }

    [Fact]
    public void Mappings_of_five_megabytes_of_garbage_are_told_and_hide_no_vm()
    {
        Put("etc/pve/nodes/pve1/qemu-server/102.conf", "hostpci0: mapping=gpu\n");
        Put("etc/pve/mapping/pci.cfg", new string('x', 5_000_000));
        var listed = Tool.Run("vms", "--root", _root);
        listed.Exit.ShouldBe(0);
        listed.Out.ShouldContain("VM 105 (linux)");
        listed.Err.ShouldContain("warning: /etc/pve/mapping/pci.cfg: it has more than 1 MiB");
    }

    [Fact]
    public void The_guests_of_each_gpu_are_listed()
    {
        var (exit, output, error) = Tool.Run("vms", "--root", _root);
        exit.ShouldBe(0, error);
        output.ShouldStartWith("0000:01:00 (NVIDIA GeForce RTX 4090): with the host (nvidia)\n  VM 105 (linux)");
        output.ShouldContain("container 107 (media)");
        output.ShouldNotContain("101");

        using var json = JsonDocument.Parse(Tool.Run("vms", "--json", "--root", _root).Out);
        json.RootElement.GetProperty("node").GetString().ShouldBe("pve1");
        json.RootElement.GetProperty("gpus")[0].GetProperty("guests").EnumerateArray().Select(c => c.GetProperty("id").GetInt32()).ShouldBe([105, 107]);
    }

    [Fact]
    public void A_vm_with_the_hook_and_no_gpu_is_listed_below_them()
    {
        Put("etc/pve/nodes/pve1/qemu-server/103.conf", "hookscript: local:snippets/gpu-handoff\nname: was-windows\n");
        Tool.Run("vms", "--root", _root).Out.ShouldContain("\nno GPU of this node, and the hook all the same\n  VM 103 (was-windows)  off  hook\n");
        using var json = JsonDocument.Parse(Tool.Run("vms", "--json", "--root", _root).Out);
        json.RootElement.GetProperty("hookAlone").EnumerateArray().ShouldHaveSingleItem().GetProperty("id").GetInt32().ShouldBe(103);
    }

    [Fact]
    public void A_machine_without_proxmox_is_told_so()
    {
        Directory.Delete(Path.Combine(_root, "etc/pve"), recursive: true);
        foreach (var arguments in new[] { new[] { "vms" }, ["attach", "101", "--dry-run"], ["detach", "101", "--dry-run"] })
        {
            var (exit, _, error) = Tool.Run([.. arguments, "--root", _root]);
            exit.ShouldBe(1);
            error.ShouldContain("this is no host of Proxmox VE");
        }
    }
}
