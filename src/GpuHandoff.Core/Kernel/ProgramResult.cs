namespace GpuHandoff.Kernel;

/// <summary>How a program ended, and what it said on either output.</summary>
public sealed record ProgramResult(int Exit, string Output);
