using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>
/// A process that is killed: after so many changes, of the machine or of its ledger, nothing of it happens any more, not
/// even its rollback. What it had asked of the kernel by then is done.
/// </summary>
sealed class Mortal : IKernel
{
    readonly IKernel _kernel;
    int _left;

    public Mortal(Desk desk, int life)
    {
        (_kernel, _left) = (desk.Kernel, life);
        desk.Ledger.Before = _ => Live();
    }

    bool IsDead { get; set; }

    /// <summary>Runs until its death or its end.</summary>
    public static bool Dies(Desk desk, int life, Action<Mortal> act) => Dies(desk, new Mortal(desk, life), act);

    /// <summary>Runs until it is about to make a certain call.</summary>
    public static bool DiesBefore(Desk desk, Func<string, bool> call, Action<Mortal> act)
    {
        var mortal = new Mortal(desk, int.MaxValue);
        desk.Kernel.Faults.Before(call, _ =>
        {
            mortal.IsDead = true;
            throw new Killed();
        });
        return Dies(desk, mortal, act);
    }

    /// <summary>
    /// Runs until a call of a certain number, at which it dies with that call on its way: its helper process lives on for a while,
    /// holds the locks as the real one does, and makes the call late. Not yet taken, the helper drops the call instead.
    /// </summary>
    public static bool DiesInFlight(Desk desk, int call, bool isTaken, TimeSpan late, Action<Mortal> act)
    {
        const string helpers = "667 gpu-handoff --hand";
        var mortal = new Mortal(desk, int.MaxValue);
        IReadOnlyList<string> held = [];
        desk.Kernel.Faults.Before(call, kernel =>
        {
            var text = kernel.Calls[^1];
            held = [.. desk.Locks.NamesOf("666 gpu-handoff").Where(name => name.StartsWith("gpu-", StringComparison.Ordinal))];
            kernel.Later(late, () =>
            {
                if (isTaken)
                    kernel.Elsewhere(helper => Make(text, helper));
                desk.Locks.Drop(helpers);
            });
            mortal.IsDead = true;
            throw new Killed();
        });
        try
        {
            act(mortal);
        }
        catch (Killed)
        {
            // As it should be.
        }
        desk.Ledger.Before = null;
        desk.Locks.Drop("666 gpu-handoff");
        // What the helper holds of the run's locks outlives it (Linux/FileLocks.cs).
        foreach (var name in held)
            new MemoryLocks(desk.Locks, helpers).Try(name, shared: false).ShouldNotBeNull();
        return mortal.IsDead;
    }

    /// <summary>write "0" /sys/…, modprobe nvidia a=b, rmmod nvidia; nodes and signals are made by the run itself, and die with it.</summary>
    static void Make(string call, IKernel helper)
    {
        var budget = TimeSpan.FromSeconds(60);
        try
        {
            switch (call.Split(' '))
            {
                case ["write", ..]:
                    helper.Write(new(call[(call.LastIndexOf(' ') + 1)..]), call[(call.IndexOf('"') + 1)..call.LastIndexOf('"')].Replace("\\n", "\n"), budget);
                    break;
                case ["modprobe", var module, .. var parameters]:
                    helper.LoadModule(module, parameters, budget);
                    break;
                case ["rmmod", var module]:
                    helper.UnloadModule(module, budget);
                    break;
            }
        }
        catch (KernelRefused)
        {
            // No process reads the answer.
        }
    }

    static bool Dies(Desk desk, Mortal mortal, Action<Mortal> act)
    {
        try
        {
            act(mortal);
        }
        catch (Killed)
        {
            // As it should be.
        }
        desk.Ledger.Before = null;
        desk.Locks.Drop("666 gpu-handoff");
        return mortal.IsDead;
    }

    public TimeSpan Uptime => _kernel.Uptime;

    public string? Read(SysPath file) => Alive().Read(file);

    public string? ReadSlow(SysPath file, TimeSpan budget) => Alive().ReadSlow(file, budget);

    public byte[]? ReadBytes(SysPath file, int count) => Alive().ReadBytes(file, count);

    public IReadOnlyList<string> List(SysPath folder) => Alive().List(folder);

    public string? Link(SysPath link) => Alive().Link(link);

    public bool Exists(SysPath path) => Alive().Exists(path);

    public FileIdentity? IdentityOf(SysPath path) => Alive().IdentityOf(path);

    public DeviceNode? NodeAt(SysPath path) => Alive().NodeAt(path);

    public FileStatus? StatusOf(SysPath path) => Alive().StatusOf(path);

    public void MakeFolder(SysPath folder)
    {
        Live();
        _kernel.MakeFolder(folder);
    }

    public void RemoveFolder(SysPath folder)
    {
        Live();
        _kernel.RemoveFolder(folder);
    }

    public void MakeLink(SysPath link, string target)
    {
        Live();
        _kernel.MakeLink(link, target);
    }

    public void RemoveLink(SysPath link)
    {
        Live();
        _kernel.RemoveLink(link);
    }

    public bool CanLoad(string module) => Alive().CanLoad(module);

    public void Pause(TimeSpan time) => Alive().Pause(time);

    public void Write(SysPath file, string text, TimeSpan budget, LastLook? look = null)
    {
        Live();
        _kernel.Write(file, text, budget, look);
    }

    public void LoadModule(string module, IReadOnlyList<string> parameters, TimeSpan budget)
    {
        Live();
        _kernel.LoadModule(module, parameters, budget);
    }

    public void UnloadModule(string module, TimeSpan budget)
    {
        Live();
        _kernel.UnloadModule(module, budget);
    }

    public void MakeNode(SysPath path, DeviceNode node)
    {
        Live();
        _kernel.MakeNode(path, node);
    }

    public void RemoveNode(SysPath path)
    {
        Live();
        _kernel.RemoveNode(path);
    }

    public ProgramResult RunProgram(
        string program, IReadOnlyList<string> arguments, TimeSpan budget, string input = "", IReadOnlyList<string>? environment = null)
    {
        Live();
        return _kernel.RunProgram(program, arguments, budget, input, environment);
    }

    public void Signal(int pid, ulong started, ProcessSignal signal)
    {
        Live();
        _kernel.Signal(pid, started, signal);
    }

    public string Converse(SysPath socket, string text, Func<string, bool> isAll, TimeSpan budget) => Alive().Converse(socket, text, isAll, budget);

    public void SetAffinity(int thread, IReadOnlyList<int> processors)
    {
        Live();
        _kernel.SetAffinity(thread, processors);
    }

    void Live()
    {
        if (_left-- <= 0)
            IsDead = true;
        _ = Alive();
    }

    IKernel Alive() => IsDead ? throw new Killed() : _kernel;

    sealed class Killed : Exception;
}
