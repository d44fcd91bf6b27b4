using System.Collections.Immutable;
using FsCheck;
using FsCheck.Fluent;
using FsCheck.Xunit;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Proxmox;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Proxmox;

public class PinningThreads
{
    const string Greeting = """{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "pve-qemu-kvm_10.0.2-4"}, "capabilities": []}}""";
    const string Event = """{"timestamp": {"seconds": 1765000000, "microseconds": 5}, "event": "RTC_CHANGE", "data": {"offset": 0}}""";
    const string Hello = """{"return": {}, "id": "gpu-handoff-hello"}""";

    /// <summary>A VM with four vCPUs and three other threads, which runs with its GPU.</summary>
    static (ProxmoxDesk Desk, SimulatedProcess Qemu, int[] Vcpus) Running(Pinning pin, Func<int[], string?>? answer = null)
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00");
        desk.Policy = Policy.Default with { Pin = pin };
        desk.Call(101, "pre-start").ShouldBe(0, desk.Words);
        var qemu = desk.Kernel.Proxmox.Start("101", ProxmoxDesk.At("0000:01:00.0"), ProxmoxDesk.At("0000:01:00.1"));
        desk.Kernel.Proxmox.Reserve("0000:01:00.0", "101", $"pid:{qemu.Pid}");
        int[] vcpus = [9003, 9001, 9002, 9004];
        foreach (var thread in vcpus)
            qemu.Threads.Add(new(thread, "CPU/KVM"));
        qemu.Threads.Add(new(9010, "IO mon_iothread"));
        qemu.Threads.Add(new(9011, "vnc_worker"));
        desk.Kernel.Sockets["/run/qemu-server/101.qmp"] = text =>
        {
            text.ShouldContain("qmp_capabilities");
            return answer is null ? string.Join("\r\n", Greeting, Event, Hello, Event, Cpus(vcpus), Event, "") : answer(vcpus);
        };
        return (desk, qemu, vcpus);
    }

    // By their numbers, and not in the order in which they are listed.
    static string Cpus(int[] threads) => $"{{\"return\": [{string.Join(", ", threads.Index().Reverse().Select(t =>
        $"{{\"thread-id\": {t.Item}, \"props\": {{\"core-id\": {t.Index}}}, \"qom-path\": \"/machine/unattached/device[{t.Index}]\", \"cpu-index\": {t.Index}, \"target\": \"x86_64\"}}"))}], \"id\": \"gpu-handoff-cpus\"}}";

    static Pinning Pin(string vcpus, string emulator = "") => new(
        [.. vcpus.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(set => CpuList.Parse(set)!.Value)], emulator is "" ? [] : CpuList.Parse(emulator)!.Value);

    static string On(SimulatedProcess qemu, int thread) =>
        qemu.Threads.Single(t => t.Id == thread).Processors is { } cpus ? CpuList.Say(cpus) : "anywhere";

    [Fact]
    public void Each_vCPU_gets_its_processor_and_all_other_threads_theirs()
    {
        var (desk, qemu, vcpus) = Running(Pin("2 3 10 11", "0-1"));
        desk.Call(101, "post-start").ShouldBe(0);
        vcpus.Select(t => On(qemu, t)).ShouldBe(["2", "3", "10", "11"], desk.Told);
        ((int[])[qemu.Pid, 9010, 9011]).Select(t => On(qemu, t)).ShouldAllBe(on => on == "0-1");
        desk.Ledger.Leases()[0].Pinned.ShouldBe(["vCPU 0 on 2", "vCPU 1 on 3", "vCPU 2 on 10", "vCPU 3 on 11", "all other threads on 0-1"]);
        desk.Told.ShouldContain("tells pinned: vCPU 0 on 2, vCPU 1 on 3");
    }

    [Fact]
    public void A_vCPU_may_have_several_and_the_others_may_be_left_alone()
    {
        var (desk, qemu, vcpus) = Running(Pin("2,10 3,11 4,12 5,13 6,14"));
        desk.Call(101, "post-start");
        vcpus.Select(t => On(qemu, t)).ShouldBe(["2,10", "3,11", "4,12", "5,13"], desk.Told);
        On(qemu, 9010).ShouldBe("anywhere");
    }

    [Fact]
    public void The_emulator_alone_may_be_pinned()
    {
        var (desk, qemu, vcpus) = Running(Pin("", "0"));
        desk.Call(101, "post-start");
        On(qemu, 9010).ShouldBe("0");
        vcpus.Select(t => On(qemu, t)).ShouldAllBe(on => on == "anywhere");
    }

    [Theory]
    [InlineData("2 3 10 99", "the host has no CPU 99, or it is offline (there are 0-15)")]
    [InlineData("2 3 10", "pin.vcpus has CPUs for 3 vCPUs, and the VM has 4")]
    public void What_cannot_be_is_told_and_nothing_is_pinned(string vcpus, string why) => NothingIsPinned(Running(Pin(vcpus, "0-1")), why);

    [Fact]
    public void An_offline_processor_is_told()
    {
        var running = Running(Pin("2 3 10 11"));
        running.Desk.Kernel.OnlineProcessors = [0, 1, 2, 3, 10];
        NothingIsPinned(running, "no CPU 11, or it is offline (there are 0-3,10)");
    }

    public static TheoryData<string?, string> Answers { get; } = new()
    {
        { null, "no answer within 5 s" },
        { "", "hung up without an answer" },
        { "\0\0\0 garbage {]", "hung up without an answer" },
        { $"{Greeting}\n{Hello}\n{{\"error\": {{\"class\": \"CommandNotFound\", \"desc\": \"The command query-cpus-fast has not been found\"}}, \"id\": \"gpu-handoff-cpus\"}}\n", "refuses: The command" },
        { $"{Greeting}\n{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"no\"}}, \"id\": \"gpu-handoff-hello\"}}\n", "refuses: no" },
        { "{\"return\": {}, \"id\": \"gpu-handoff-cpus\"}\n", "answers something else" },
        { "{\"return\": [{\"cpu-index\": 0}], \"id\": \"gpu-handoff-cpus\"}\n", "without a number or a thread" },
        { "{\"return\": [{\"cpu-index\": 0, \"thread-id\": 1}], \"id\": \"gpu-handoff-cpus\"}\n", "without a number or a thread" },
        { "{\"return\": [{\"cpu-index\": 0, \"thread-id\": 424242}], \"id\": \"gpu-handoff-cpus\"}\n", "thread 424242 is none of QEMU's" },
    };

    [Theory]
    [MemberData(nameof(Answers))]
    public void A_monitor_that_does_not_answer_as_it_should_is_told_and_nothing_is_pinned(string? answer, string why) =>
        NothingIsPinned(Running(Pin("2 3 4 5"), _ => answer), why);

    [Fact]
    public void Threads_that_are_shared_by_vCPUs_are_not_pinned() =>
        NothingIsPinned(Running(Pin("2 3 4 5"), vcpus => $"{Hello}\n{Cpus([vcpus[0], vcpus[0]])}\n"), "share a thread");

    [Fact]
    public void One_that_the_kernel_refuses_takes_all_back()
    {
        var running = Running(Pin("2 3 4 5", "0-1"));
        running.Desk.Kernel.Faults.Refuse(call => call.StartsWith("sched_setaffinity 9010 0", StringComparison.Ordinal), Errno.NotPermitted);
        running.Desk.Call(101, "post-start").ShouldBe(0);
        running.Desk.Told.ShouldContain("warns no thread is pinned: sched_setaffinity of thread 9010: EPERM");
        running.Qemu.Threads.ShouldAllBe(t => t.Processors == null || t.Processors.Count == 16);
        running.Desk.Ledger.Leases()[0].Pinned.ShouldBeEmpty();
    }

    [Fact]
    public void One_that_reads_back_otherwise_takes_all_back()
    {
        var running = Running(Pin("2 3 4 5"));
        running.Desk.Kernel.Faults.Ignore(call => call == "sched_setaffinity 9004 5");
        running.Desk.Call(101, "post-start").ShouldBe(0);
        running.Desk.Told.ShouldContain("vCPU 3 shall run on 5, and the kernel lets it on 0-15");
        running.Qemu.Threads.ShouldAllBe(t => t.Processors == null || t.Processors.Count == 16);
    }

    [Fact]
    public void A_VM_has_its_own_pins_and_a_running_VM_without_a_GPU_has_none()
    {
        var (desk, qemu, vcpus) = Running(Pinning.None);
        desk.Policy = new PolicySet { Vms = [new("102", Say("9-12")), new("101", Say("4-7"))] };
        desk.Call(102, "post-start").ShouldBe(0);
        desk.Call(101, "post-start").ShouldBe(0);
        vcpus.Select(t => On(qemu, t)).ShouldBe(["4", "5", "6", "7"], desk.Told);

        static Setting Say(string cpus) => new("pin.vcpus", new("test", 1), p => p with { Pin = Pin(string.Join(' ', CpuList.Parse(cpus)!.Value)) });
    }

    static void NothingIsPinned((ProxmoxDesk Desk, SimulatedProcess Qemu, int[] Vcpus) running, string why)
    {
        var writes = running.Desk.Writes;
        running.Desk.Call(101, "post-start").ShouldBe(0);
        running.Desk.Told.ShouldContain("warns no thread is pinned");
        running.Desk.Told.ShouldContain(why);
        running.Desk.Writes.ShouldBe(writes);
        running.Qemu.Threads.ShouldAllBe(t => t.Processors == null);
        running.Desk.Ledger.Leases()[0].Qemu!.Pid.ShouldBe(running.Qemu.Pid);
    }

    [Theory]
    [InlineData("0", "0")]
    [InlineData("2-5,10,12-13", "2,3,4,5,10,12,13")]
    [InlineData("7,3-4", "7,3,4")]
    public void A_list_is_read_in_its_order(string text, string cpus) => CpuList.Parse(text)!.Value.ShouldBe(cpus.Split(',').Select(int.Parse));

    [Theory]
    [InlineData("")]
    [InlineData("-")]
    [InlineData("1-")]
    [InlineData("5-2")]
    [InlineData("1,1")]
    [InlineData("0-3,2")]
    [InlineData("1,,2")]
    [InlineData("8192")]
    [InlineData("0-999999999")]
    [InlineData("1-2-3")]
    [InlineData("+1")]
    [InlineData("all")]
    public void What_is_no_list_is_none(string text) => CpuList.Parse(text).ShouldBeNull();

    [Property]
    public Property A_list_that_is_written_reads_as_it_was() => Prop.ForAll(
        Gen.Choose(0, CpuList.Most - 1).ListOf().Select(list => list.Distinct().ToArray()).Where(list => list.Length > 0).ToArbitrary(),
        cpus => CpuList.Parse(CpuList.Say(cpus))!.Value.SequenceEqual(cpus));

    [Property]
    public void Whatever_a_monitor_says_is_an_answer_or_none(NonNull<string> heard)
    {
        foreach (var text in (string[])[heard.Get, Cpus([5, 6]) + heard.Get, heard.Get + Cpus([5, 6])[..^1], $"{{\"id\": \"gpu-handoff-cpus\", \"return\": {heard.Get}}}"])
        {
            _ = Qmp.IsAll(text);
            try
            {
                Qmp.Threads(text).ShouldAllBe(thread => thread > 1);
            }
            catch (NotProxmox)
            {
                // As it should be.
            }
        }
    }

    [Property]
    public void A_plan_has_each_thread_once_and_each_vCPU_in_its_place(byte vcpus, byte others)
    {
        ImmutableArray<int> threads = [.. Enumerable.Range(1000, vcpus % 32 + 1)];
        var tasks = threads.Concat(Enumerable.Range(2000, others)).Append(7).ToList();
        var wanted = new Pinning([.. threads.Select(t => ImmutableArray.Create(t - 1000))], [1, 2]);
        var plan = Pinner.Plan(wanted, 7, threads, tasks).ToList();
        plan.Select(p => p.Thread).Order().ShouldBe(tasks.Order());
        plan.Where(p => p.Vcpu is not null).ShouldAllBe(p => p.Processors.Single() == p.Vcpu && threads[p.Vcpu!.Value] == p.Thread);
        plan.First(p => p.Vcpu is null).Thread.ShouldBe(7);
    }
}
