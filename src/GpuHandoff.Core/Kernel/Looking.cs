namespace GpuHandoff.Kernel;

/// <summary>One look of several that are made at a time. A look that makes progress is waited for, and one that does not is given up.</summary>
public class Looking
{
    /// <summary>A look that nothing waits for and nothing gives up.</summary>
    public static Looking Alone { get; } = new();

    /// <summary>It is no longer waited for: it should end as soon as it can, because nothing uses what it still finds.</summary>
    public virtual bool IsGivenUp => false;

    /// <summary>It has read something more.</summary>
    public virtual void Proceeds()
    {
    }
}
