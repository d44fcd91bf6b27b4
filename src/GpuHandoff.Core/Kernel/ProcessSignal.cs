namespace GpuHandoff.Kernel;

/// <summary>What a process is told, by its number (asm-generic/signal.h).</summary>
public enum ProcessSignal
{
    Kill = 9,
    Terminate = 15,
}
