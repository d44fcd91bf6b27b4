using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;

namespace GpuHandoff.Proxmox;

/// <summary>A thread and where it shall run.</summary>
/// <param name="Vcpu">Its vCPU's number; null: it is one of the others.</param>
public sealed record Pin(int Thread, int? Vcpu, ImmutableArray<int> Processors);

/// <summary>
/// Puts the threads of a VM's QEMU where the policy says: all of them, or none. What runs badly runs; nothing of it is worth
/// a VM.
/// </summary>
public sealed class Pinner(IKernel kernel)
{
    static readonly TimeSpan _patience = TimeSpan.FromSeconds(5);

    // Threads that come while others are being pinned have their maker's place; one look more finds the rest.
    const int Looks = 3;

    /// <summary>What was pinned where, in words.</summary>
    /// <exception cref="NotPinned">Nothing was, and everything is where it was.</exception>
    public ImmutableArray<string> Run(int vm, QemuProcess qemu, Pinning wanted)
    {
        if (wanted.IsNone())
            return [];
        var vcpus = Threads(vm);
        var before = new Dictionary<int, ImmutableArray<int>>();
        try
        {
            Refuse(Problem(wanted, vcpus, Tasks(qemu), Online()));
            for (var look = 0; look < Looks; look++)
            {
                var due = Plan(wanted, qemu.Pid, vcpus, Tasks(qemu)).Where(pin => !before.ContainsKey(pin.Thread)).ToList();
                if (due.Count == 0)
                    break;
                foreach (var pin in due)
                    Put(qemu, pin, before);
            }
        }
        catch (Exception refused) when (refused is KernelRefused or NotPinned)
        {
            var left = before.Where(was => !PutBack(qemu, was.Key, was.Value)).Select(was => was.Key).ToList();
            throw new NotPinned(left is [] ? refused.Message : $"{refused.Message}; and threads {string.Join(", ", left)} could not be put back");
        }
        return
        [
            .. wanted.Vcpus.Take(vcpus.Length).Select((set, number) => $"vCPU {number} on {CpuList.Say(set.Order())}"),
            .. wanted.Emulator is [] ? (ImmutableArray<string>)[] : [$"all other threads on {CpuList.Say(wanted.Emulator.Order())}"],
        ];
    }

    /// <summary>Why nothing may be pinned; null: it may.</summary>
    public static string? Problem(Pinning wanted, ImmutableArray<int> vcpus, IReadOnlyCollection<int> tasks, ImmutableArray<int>? online)
    {
        if (vcpus.FirstOrDefault(thread => !tasks.Contains(thread)) is not 0 and var stranger)
            return $"thread {stranger} is none of QEMU's";
        if (wanted.Vcpus is not [] && vcpus.Distinct().Count() != vcpus.Length)
            return "the VM's vCPUs share a thread, as without KVM they may";
        if (wanted.Vcpus is not [] && wanted.Vcpus.Length < vcpus.Length)
            return $"pin.vcpus has CPUs for {wanted.Vcpus.Length} vCPUs, and the VM has {vcpus.Length}";
        var missing = online is { } there ? wanted.Vcpus.Take(vcpus.Length).SelectMany(set => set).Concat(wanted.Emulator).Except(there).Order().ToList() : [];
        return missing is [] ? null : $"the host has no CPU {CpuList.Say(missing)}, or it is offline (there are {CpuList.Say(online!.Value)})";
    }

    /// <summary>QEMU's first thread before its others: threads to come have the place of whoever makes them.</summary>
    public static IEnumerable<Pin> Plan(Pinning wanted, int qemu, ImmutableArray<int> vcpus, IEnumerable<int> tasks)
    {
        foreach (var (number, set) in wanted.Vcpus.Take(vcpus.Length).Index())
            yield return new(vcpus[number], number, set);
        if (wanted.Emulator is [])
            yield break;
        foreach (var thread in tasks.Where(t => !vcpus.Contains(t)).OrderBy(t => t != qemu))
            yield return new(thread, null, wanted.Emulator);
    }

    ImmutableArray<int> Threads(int vm)
    {
        var socket = RunningVm.Folder / $"{vm.ToString(CultureInfo.InvariantCulture)}.qmp";
        try
        {
            return Qmp.Threads(kernel.Converse(socket, Qmp.AskForCpus, Qmp.IsAll, _patience));
        }
        catch (KernelRefused refused)
        {
            throw new NotPinned(refused.Message);
        }
        catch (NotProxmox trouble)
        {
            throw new NotPinned($"{socket}: {trouble.Message}");
        }
    }

    void Put(QemuProcess qemu, Pin pin, Dictionary<int, ImmutableArray<int>> before)
    {
        if (Allowed(qemu, pin.Thread) is not { } was)
        {
            // Workers come and go; a vCPU does not.
            Refuse(pin.Vcpu is { } gone ? $"the thread of vCPU {gone} has ended" : null);
            return;
        }
        try
        {
            kernel.SetAffinity(pin.Thread, pin.Processors);
        }
        catch (KernelRefused refused) when (refused.Errno == Errno.NoProcess && pin.Vcpu is null)
        {
            return;
        }
        before[pin.Thread] = was;
        // A cpuset of the VM's scope may allow less than is asked for.
        if (Allowed(qemu, pin.Thread) is { } now && !now.Order().SequenceEqual(pin.Processors.Order()))
        {
            Refuse($"{(pin.Vcpu is { } vcpu ? $"vCPU {vcpu}" : $"thread {pin.Thread}")} shall run on {CpuList.Say(pin.Processors.Order())}, "
                + $"and the kernel lets it on {CpuList.Say(now)}");
        }
    }

    bool PutBack(QemuProcess qemu, int thread, ImmutableArray<int> was)
    {
        try
        {
            kernel.SetAffinity(thread, was);
            return Allowed(qemu, thread) is not { } now || now.SequenceEqual(was);
        }
        catch (KernelRefused refused)
        {
            return refused.Errno == Errno.NoProcess;
        }
    }

    ImmutableArray<int> Tasks(QemuProcess qemu) =>
    [
        .. kernel.List(Task(qemu)).Select(name => int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var thread) ? thread : 0)
            .Where(thread => thread > 0).Order(),
    ];

    // Cpus_allowed_list:	0-3,8
    /// <summary>Where a thread may run; null: it has ended.</summary>
    ImmutableArray<int>? Allowed(QemuProcess qemu, int thread)
    {
        const string key = "Cpus_allowed_list:";
        foreach (var line in (kernel.Read(Task(qemu) / thread.ToString(CultureInfo.InvariantCulture) / "status") ?? "").Split('\n'))
        {
            if (line.StartsWith(key, StringComparison.Ordinal))
                return CpuList.Parse(line[key.Length..].Trim());
        }
        return null;
    }

    ImmutableArray<int>? Online() => kernel.Read(new("/sys/devices/system/cpu/online")) is { } text ? CpuList.Parse(text.Trim()) : null;

    static SysPath Task(QemuProcess qemu) => Sys.Proc / qemu.Pid.ToString(CultureInfo.InvariantCulture) / "task";

    static void Refuse(string? why)
    {
        if (why is not null)
            throw new NotPinned(why);
    }
}

/// <summary>Nothing is pinned, for this reason.</summary>
public sealed class NotPinned(string message) : Exception(message);
