namespace GpuHandoff.Lab;

/// <summary>The lab cannot run here: the reason, and what to do about it. A test reports it as skipped; CI does not accept it.</summary>
public sealed class LabUnavailable(string reason, string remedy) : Exception($"{reason}\nhint: {remedy}")
{
    public string Reason { get; } = reason;

    public string Remedy { get; } = remedy;
}
