using System.Text;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Steps;

namespace GpuHandoff.Core.Tests.Plans;

/// <summary>One policy, and another one for one of the cards.</summary>
public class CardByCard
{
    static readonly PciAddress _first = new(0, 1, 0, 0);
    static readonly PciAddress _second = new(0, 2, 0, 0);

    static Policy With(PciAddress card, Policy own) => Policy.Default with { Own = Policy.Default.Own.Add(card, own) };

    [Fact]
    public void Only_the_card_that_has_it_in_its_policy_is_reset_first()
    {
        var plan = new Desk(Hosts.TwoIdenticalGpus()).Planned(Target.Vfio, "all", With(_second, Policy.Default with { ResetFirst = true }));
        plan.Steps().OfType<Rebind>().Where(r => r.ResetFirst).Select(r => r.Function).ShouldBe([_second]);
    }

    [Fact]
    public void A_ladder_has_the_rungs_of_its_card()
    {
        var plan = new Desk(Hosts.TwoIdenticalGpus()).Planned(Target.Vfio, "all", With(_second, Policy.Default with { Resets = [] }));
        plan.Steps().OfType<UnloadDriver>().Single().Ladders.SelectMany(l => l.Slot).ShouldAllBe(f => f.SharesSlotWith(_first));
    }

    [Fact]
    public void A_size_that_only_one_card_shall_have_is_a_check_of_that_card()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        var policy = With(_second, Policy.Default with { Bar1 = 16UL << 30 });
        desk.Refused(Target.Vfio, "02:00", policy).Findings.ShouldAllBe(f => f.Code == "bar-size-not-offered");
        desk.Planned(Target.Vfio, "01:00", policy).Steps().ShouldNotContain(s => s is ResizeBar);
    }

    [Fact]
    public void Only_the_card_that_is_claimed_comes_to_the_host_where_both_were_on_vfio_pci_before()
    {
        var desk = new Desk(Hosts.AlreadyOnVfio());
        var gpu = desk.Survey().Gpus.First(g => g.Display().IsOnVfio()).Address;
        desk.Done(Target.Vfio, gpu.ToString());
        var stays = desk.Planned(Target.Host, gpu.ToString(), With(new(0, 9, 0, 0), Policy.Default with { Claim = true }));
        stays.Notes.ShouldContain(note => note.Contains("stays there"));
        stays.Forget.ShouldBeEmpty();
        var comes = desk.Planned(Target.Host, gpu.ToString(), With(gpu, Policy.Default with { Claim = true }));
        comes.Notes.ShouldNotContain(note => note.Contains("stays there"));
        comes.Forget.ShouldBe([gpu]);
    }

    [Fact]
    public void A_neighbour_goes_along_with_the_card_whose_policy_lets_it()
    {
        var usb = new PciHardware(new(0, 5, 0, 0), 0x1b21, 0x2142, 0x0c0330) { IommuGroup = 11 };
        var desk = new Desk(new HostBuilder().With(Hosts.Card(1)).With(usb).WithNvidiaDriver(new())
            .Loading("snd_hda_intel", "xhci_pci", "nvidia", "nvidia_uvm").Boot());
        var gpu = desk.Survey().Gpus.Single(g => g.IsNvidia());
        var own = Policy.Default with { Accepted = [.. gpu.Neighbours.Select(n => n.Address)] };
        var plan = desk.Planned(Target.Vfio, policy: With(gpu.Address, own));
        plan.Steps().OfType<Rebind>().Select(r => r.Function).ShouldContain(gpu.Neighbours[0].Address);
        // What all cards may take along, this one may not.
        desk.Refused(Target.Vfio, policy: own with { Own = Policy.Default.Own.Add(gpu.Address, Policy.Default) })
            .Findings.ShouldContain(f => f.Code == "group-is-shared");
    }

    [Fact]
    public void The_record_keeps_the_uuid_while_a_vm_has_the_card_and_the_way_back_finds_the_policy_by_it()
    {
        var kernel = Hosts.SingleGpu();
        kernel.InstallNvidiaSmi(drains: false);
        kernel.SetLegacyPersistence(_first, on: true);
        var desk = new Desk(kernel);
        var uuid = desk.Survey().Gpus[0].Uuid.ShouldNotBeNull();
        PolicySet said = PolicyFiles.Read([new("policy.yaml", Encoding.UTF8.GetBytes($"gpus:\n  {uuid}:\n    reset-first: true\n"))]).Said;
        desk.Turn().HandOver(Target.Vfio, null, said, default).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>();
        desk.Ledger.Homes().Single().Uuid.ShouldBe(uuid);
        var machine = desk.Survey();
        machine.Gpus[0].Uuid.ShouldBeNull();
        said.On(machine).For(machine.Gpus[0]).ResetFirst.ShouldBeTrue();
        said.Unmatched(machine).ShouldBeEmpty();
    }

    [Fact]
    public void A_gpu_of_the_policy_that_is_not_there_is_a_note_and_no_refusal()
    {
        var desk = new Desk(Hosts.SingleGpu());
        PolicySet said = PolicyFiles.Read([new("policy.yaml", "gpus:\n  0b:00:\n    claim: true\n"u8.ToArray())]).Said;
        desk.Turn().HandOver(Target.Vfio, null, said, default).ShouldBeOfType<Ending.Ran>().Plan.Notes
            .ShouldHaveSingleItem().ShouldContain("0b:00 (policy.yaml:3)");
    }

    [Fact]
    public void A_card_that_nobody_has_opened_yet_is_asked_for_its_uuid_where_the_policy_goes_by_one()
    {
        var kernel = Hosts.TwoIdenticalGpus(new("580.126.20"));
        kernel.InstallNvidiaSmi();
        var desk = new Desk(kernel);
        desk.Survey().Gpus.ShouldAllBe(g => g.Uuid == null);
        PolicySet said = PolicyFiles.Read(
            [new("policy.yaml", "gpus:\n  GPU-00000000-0000-0000-0000-000000000002:\n    reset-first: true\n"u8.ToArray())]).Said;

        Resets("0000:02:00.0").ShouldBeTrue();
        Resets("0000:01:00.0").ShouldBeFalse();

        bool Resets(string gpu) => desk.Turn().HandOver(Target.Vfio, gpu, said, default).ShouldBeOfType<Ending.Ran>()
            .Plan.Steps().OfType<Rebind>().Any(r => r.ResetFirst);
    }

    [Fact]
    public void A_card_that_tells_no_uuid_is_not_handed_over_while_the_policy_may_mean_it()
    {
        var desk = new Desk(Hosts.SingleGpu());
        PolicySet said = PolicyFiles.Read(
            [new("policy.yaml", "gpus:\n  GPU-00000000-0000-0000-0000-00000000000f:\n    reset-first: true\n"u8.ToArray())]).Said;
        var calls = desk.Kernel.Calls.Count;

        var refused = desk.Turn().HandOver(Target.Vfio, null, said, default).ShouldBeOfType<Ending.Refused>().Why.Findings.ShouldHaveSingleItem();

        refused.What.ShouldContain("GPU-00000000-0000-0000-0000-00000000000f");
        refused.Evidence.ShouldHaveSingleItem().ShouldContain("policy.yaml:3");
        refused.Hint.ShouldContain("nvidia-smi -L");
        desk.Kernel.Calls.Count.ShouldBe(calls);
    }
}
