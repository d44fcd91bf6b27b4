namespace GpuHandoff.Runs;

/// <summary>The record on disk could not be read or written. Nothing may be changed that is not written down first.</summary>
public sealed class LedgerRefused(string what, string hint, Exception? cause = null) : Exception(what, cause)
{
    /// <summary>The way out.</summary>
    public string Hint { get; } = hint;
}
