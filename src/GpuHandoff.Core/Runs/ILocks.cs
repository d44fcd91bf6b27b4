namespace GpuHandoff.Runs;

/// <summary>
/// Who may work on what: a lock for each card, and one for the driver's modules, which are everybody's. The kernel drops
/// a lock when its holder ends, however that comes about.
/// </summary>
public interface ILocks
{
    /// <summary>Takes it at once or not at all.</summary>
    /// <param name="shared">Together with others who share it.</param>
    ILock? Try(string name, bool shared);

    /// <summary>Who has it now, in words: <c>4211 gpu-handoff</c>.</summary>
    string Holder(string name);
}

/// <summary>A lock that is held until it is disposed.</summary>
public interface ILock : IDisposable
{
    /// <summary>Lets others share it. False where somebody took it for himself in that moment: it is lost then.</summary>
    bool Share();
}
