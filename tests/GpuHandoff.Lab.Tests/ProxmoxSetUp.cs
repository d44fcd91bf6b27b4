namespace GpuHandoff.Lab.Tests;

/// <summary>A VM that knows nothing of the tool, set up by one command, used, and set back by another.</summary>
[Trait("Category", "Lab")]
[Collection(LabNode.Collection)]
public sealed class ProxmoxSetUp(LabNode node)
{
    const string Snapshot = "cat /etc/pve/qemu-server/101.conf; find /var/lib/vz/snippets -printf '%p %l %m %u\\n' | sort";

    [LabFact]
    public void A_vm_is_set_up_by_one_command_gets_its_gpu_with_each_start_and_is_set_back_by_another() => node.Case(() =>
    {
        // As Proxmox leaves a fresh host: no folder for snippets.
        node.Vm.Run("mv /var/lib/vz/snippets /var/lib/vz/snippets.lab").Ok();
        try
        {
            node.Vm.Run("printf 'cores: 2\\nide0: local:images/guest.raw\\nmachine: q35\\nmemory: 32\\nname: gaming\\n' > /etc/pve/qemu-server/101.conf").Ok();
            var before = node.Vm.Run($"{Snapshot} 2> /dev/null").Output;
            var address = node.First.Address.ToString();

            node.Host.Tool(0, $"attach 101 --gpu {address} --dry-run").Output.ShouldContain($"qm set 101 --hostpci0 {node.First.Address.Slot},pcie=1");
            node.Vm.Run($"{Snapshot} 2> /dev/null").Output.ShouldBe(before);

            node.Host.Tool(0, $"attach 101 --gpu {address}");
            node.Host.Tool(0, $"attach 101 --gpu {address}").ToString().ShouldContain("already");
            node.Vm.Run("readlink /var/lib/vz/snippets/gpu-handoff").Ok().Text.ShouldBe("/usr/sbin/gpu-handoff");
            node.Vm.Run("stat -c %a /var/lib/vz/snippets").Ok().Text.ShouldBe("755");

            node.Qm("start 101");
            node.Drivers(node.First).ShouldBe(LabNode.Away);
            node.Hooks(101).ShouldBe("pre-start post-start");
            node.Host.Tool(0, "vms").Output.ShouldMatch(@"VM 101 \(gaming\) +has it +hostpci0 +hook");
            node.Host.Tool(1, "detach 101").ToString().ShouldContain("qm shutdown 101");

            node.Qm("stop 101");
            node.ComesHome(node.First);
            node.Host.Tool(0, "detach 101");
            node.Vm.Run($"{Snapshot} 2> /dev/null").Output.ShouldBe(before);
            node.Vm.Run("ls /var/lib/gpu-handoff/attach-* 2> /dev/null").Output.ShouldBe("");
        }
        finally
        {
            node.Vm.Run("rm -rf /var/lib/vz/snippets; mv /var/lib/vz/snippets.lab /var/lib/vz/snippets; rm -f /var/lib/gpu-handoff/attach-*").Ok();
        }
    });

    [LabFact]
    public void A_vm_that_a_task_of_proxmox_is_at_work_on_is_left_as_it_is() => node.Case(() =>
    {
        node.Vm.Run("printf 'machine: q35\\nmemory: 32\\nname: gaming\\n' > /etc/pve/qemu-server/101.conf").Ok();
        var before = node.Vm.Run(Snapshot).Output;
        node.Vm.Run("mkdir -p /run/lock/qemu-server; setsid flock /run/lock/qemu-server/lock-101.conf sleep 600 < /dev/null > /dev/null 2>&1 & sleep 0.5").Ok();
        node.Host.Tool(1, $"attach 101 --gpu {node.First.Address}").ToString().ShouldContain("is at work on VM 101 (gaming)");
        node.Vm.Run("pkill -x sleep; true").Ok();
        node.Vm.Run(Snapshot).Output.ShouldBe(before);
    });
}
