namespace GpuHandoff.Simulation;

/// <summary>
/// What goes wrong, and when. Every call that could change the machine is numbered from 1 in the order it is made; a
/// fault is set for a number, or for what the call says.
/// </summary>
public sealed class Faults
{
    readonly List<(Func<int, string, bool> When, bool Once, Fault Fault)> faults = [];
    readonly List<(Func<int, string, bool> When, bool Once, Action<SimulatedKernel> Do)> meanwhile = [];
    readonly List<(Func<int, string, bool> When, Action<SimulatedKernel> Do)> whileLooking = [];

    /// <summary>The n-th call is refused: nothing changes, the caller gets the errno.</summary>
    public Faults Refuse(int call, int errno) => At(call, new(FaultKind.Refuse, errno));

    public Faults Refuse(Func<string, bool> call, int errno, bool once = false) => When(call, new(FaultKind.Refuse, errno), once);

    /// <summary>The n-th call reports success and does nothing.</summary>
    public Faults Ignore(int call) => At(call, new(FaultKind.Ignore));

    public Faults Ignore(Func<string, bool> call, bool once = false) => When(call, new(FaultKind.Ignore), once);

    /// <summary>The n-th call does not come back: nothing changes, and the device that it named keeps its lock taken.</summary>
    public Faults Silent(int call) => At(call, new(FaultKind.Silent));

    public Faults Silent(Func<string, bool> call, bool once = false) => When(call, new(FaultKind.Silent), once);

    /// <summary>The n-th call does not come back in time, and yet happens.</summary>
    public Faults SilentThenDone(int call) => At(call, new(FaultKind.SilentThenDone));

    public Faults SilentThenDone(Func<string, bool> call, bool once = false) => When(call, new(FaultKind.SilentThenDone), once);

    /// <summary>The n-th call happens, and an error is reported all the same.</summary>
    public Faults RefuseAfterwards(int call, int errno) => At(call, new(FaultKind.RefuseAfterwards, errno));

    public Faults RefuseAfterwards(Func<string, bool> call, int errno, bool once = false) =>
        When(call, new(FaultKind.RefuseAfterwards, errno), once);

    /// <summary>Somebody else acts just before the n-th call: a poller, udev, another administrator.</summary>
    public Faults Before(int call, Action<SimulatedKernel> act)
    {
        meanwhile.Add(((number, _) => number == call, true, act));
        return this;
    }

    public Faults Before(Func<string, bool> call, Action<SimulatedKernel> act, bool once = true)
    {
        meanwhile.Add(((_, text) => call(text), once, act));
        return this;
    }

    /// <summary>Something happens just before the n-th look of all, once.</summary>
    public Faults BeforeLook(int look, Action<SimulatedKernel> act)
    {
        whileLooking.Add(((number, _) => number == look, act));
        return this;
    }

    /// <summary>The same just before the first look at such a path.</summary>
    public Faults BeforeLook(Func<string, bool> path, Action<SimulatedKernel> act)
    {
        whileLooking.Add(((_, at) => path(at), act));
        return this;
    }

    public void Clear()
    {
        faults.Clear();
        meanwhile.Clear();
        whileLooking.Clear();
    }

    internal void MeanwhileLooking(int number, string path, SimulatedKernel kernel)
    {
        if (whileLooking.Count == 0)
            return;
        foreach (var entry in whileLooking.Where(entry => entry.When(number, path)).ToList())
        {
            whileLooking.Remove(entry);
            kernel.Unseen(() => entry.Do(kernel));
        }
    }

    internal void Meanwhile(int number, string call, SimulatedKernel kernel)
    {
        foreach (var entry in meanwhile.Where(entry => entry.When(number, call)).ToList())
        {
            if (entry.Once)
                meanwhile.Remove(entry);
            entry.Do(kernel);
        }
    }

    internal Fault? For(int number, string call)
    {
        var index = faults.FindIndex(entry => entry.When(number, call));
        if (index < 0)
            return null;
        var (_, once, fault) = faults[index];
        if (once)
            faults.RemoveAt(index);
        return fault;
    }

    Faults At(int call, Fault fault)
    {
        faults.Add(((number, _) => number == call, true, fault));
        return this;
    }

    Faults When(Func<string, bool> call, Fault fault, bool once)
    {
        faults.Add(((_, text) => call(text), once, fault));
        return this;
    }
}

enum FaultKind
{
    Refuse,
    Ignore,
    Silent,
    SilentThenDone,
    RefuseAfterwards,
}

sealed record Fault(FaultKind Kind, int Errno = 0);
