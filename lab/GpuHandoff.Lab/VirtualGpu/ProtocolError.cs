namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>QEMU said something that the virtual GPU does not know: the lab is wrong, not the case.</summary>
public sealed class ProtocolError(string message) : Exception(message);
