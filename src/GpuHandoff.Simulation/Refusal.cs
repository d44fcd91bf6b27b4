namespace GpuHandoff.Simulation;

/// <summary>A model says no; the kernel knows which call it was and makes a <c>KernelRefused</c> of it.</summary>
sealed class Refusal(int errno, string? reason = null) : Exception(reason ?? $"errno {errno}")
{
    public int Errno { get; } = errno;
    public string? Reason { get; } = reason;
}

/// <summary>A model could not finish within the caller's budget.</summary>
sealed class NoAnswer : Exception;

/// <summary>The last look before a write shows a user: the write is not made.</summary>
sealed class InUse(string what) : Exception(what);

/// <summary>A look that does not end; the caller that makes several at a time gives it up.</summary>
sealed class DoesNotEnd : Exception;
