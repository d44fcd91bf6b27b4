namespace GpuHandoff.Libvirt;

/// <summary>Text that is no domain as libvirt writes them.</summary>
public sealed class NoDomain(string message) : Exception(message);
