namespace GpuHandoff.Steps;

/// <summary>
/// What a step that may fail found done already by another program. It changed nothing, so there is nothing of it to undo; the
/// message says what is left as it is, for a warning.
/// </summary>
public sealed class NothingDone(string what) : Exception(what);
