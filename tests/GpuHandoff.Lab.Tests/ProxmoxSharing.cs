namespace GpuHandoff.Lab.Tests;

/// <summary>More VMs than GPUs: who has it is undisturbed, and who wants it is told whose it is.</summary>
[Trait("Category", "Lab")]
[Collection(LabNode.Collection)]
public sealed class ProxmoxSharing(LabNode node)
{
    LabVm Vm => node.Vm;

    PluggedGpu First => node.First;

    PluggedGpu Second => node.Second;

    [LabFact]
    public void Of_two_vms_with_one_gpu_the_second_is_refused_by_the_firsts_name_and_the_first_is_undisturbed() => node.Case(() =>
    {
        foreach (var (has, wants) in new[] { (101, 102), (102, 101) })
        {
            node.Define(101, "name: gaming", LabNode.Passes(First));
            node.Define(102, "name: films", LabNode.Passes(First));
            node.Qm($"start {has}");
            var pid = node.Pid(has);
            node.LooksOnly(1, $"hook {wants} pre-start --dry-run").ShouldContain($"VM {has}");
            var refused = Vm.Run($"qm start {wants}");
            refused.ExitCode.ShouldNotBe(0);
            var log = refused.Output + refused.Errors;
            log.ShouldContain($"VM {has}");
            log.ShouldContain(has == 101 ? "gaming" : "films");
            log.ShouldContain($"hookscript error for {wants} on pre-start");
            refused.Took.ShouldBeLessThan(TimeSpan.FromSeconds(3), "at once");
            node.Undisturbed(has, pid, First);
            node.Qm($"stop {has}");
            node.ComesHome(First);
        }
    });

    [LabFact]
    public void Of_two_vms_that_start_at_the_same_time_one_gets_the_gpu_and_the_other_is_told_who_has_it() => node.Case(() =>
    {
        // Who comes first is left to chance, and the order in which they are asked to is not.
        foreach (var asked in new[] { "101 102", "102 101", "101 102", "102 101" })
        {
            node.Define(101, "name: gaming", LabNode.Passes(First));
            node.Define(102, "name: films", LabNode.Passes(First));
            var ended = Vm.Run($"for vm in {asked}; do (qm start $vm > /run/start-$vm 2>&1; echo $? > /run/ended-$vm) & done; wait; cat /run/ended-101 /run/ended-102")
                .Ok().Text.ReplaceLineEndings(" ");
            ended.ShouldBeOneOf("0 255", "255 0");
            var (has, wants) = ended == "0 255" ? (101, 102) : (102, 101);
            var log = Vm.Run($"cat /run/start-{wants}").Ok().Text;
            log.ShouldContain($"VM {has}");
            log.ShouldContain($"hookscript error for {wants} on pre-start");
            node.Hooks(wants).ShouldBe("pre-start!");
            node.Undisturbed(has, node.Pid(has), First);
            node.Leases().ShouldNotContain(wants.ToString());
            node.Qm($"stop {has}");
            node.ComesHome(First);
            node.Settled(has);
            Vm.Run("rm /run/lab-pve/hooks").Ok();
        }
    });

    [LabFact]
    public void A_vm_is_refused_at_once_also_while_another_is_still_being_given_the_gpu() => node.CaseOfUsers(() =>
    {
        node.Work("slow", stopsIn: 8);
        node.Policy("users:\n  units: restart");
        node.Define(101, "name: gaming", LabNode.Passes(First));
        node.Define(102, LabNode.Passes(First));
        var first = Vm.Start("qm start 101");
        node.AwaitLog("qmstart-101", $"hand {First.Address.Slot}");
        var log = node.QmFails("start 102");
        log.ShouldContain("VM 101 (gaming)");
        node.HookTook(102, "pre-start").ShouldBeLessThan(TimeSpan.FromSeconds(2), "at once");
        first.HasEnded.ShouldBeFalse("the first is still at work");
        first.Wait(TimeSpan.FromSeconds(60)).ExitCode.ShouldBe(0);
        node.Undisturbed(101, node.Pid(101), First);
        node.Qm("stop 101");
        node.ComesHome(First);
        node.IsAtWork("slow");
    });

    [LabFact]
    public void Of_two_mapped_gpus_each_vm_gets_one_and_a_third_vm_none() => node.Case(() =>
    {
        node.Map("gpu-pool", First, Second);
        foreach (var id in new[] { 101, 102, 103 })
            node.Define(id, "hostpci0: mapping=gpu-pool");
        node.Qm("start 101");
        (node.Drivers(First), node.Drivers(Second)).ShouldBe((LabNode.Away, LabNode.Home));
        var pid = node.Pid(101);
        node.Qm("start 102");
        node.Drivers(Second).ShouldBe(LabNode.Away);
        node.QmFails("start 103").ShouldContain("pre-start");
        node.Undisturbed(101, pid, First);
        node.Qm("stop 101");
        node.ComesHome(First);
        node.Drivers(Second).ShouldBe(LabNode.Away);
        node.Qm("stop 102");
        node.ComesHome(Second);
    });
}
