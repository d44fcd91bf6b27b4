namespace GpuHandoff.Lab.Tests;

/// <summary>A host with one RTX 4090, booted once for all of <see cref="HandingOverOneGpu"/>.</summary>
public sealed class OneGpu : IDisposable
{
    readonly Lazy<Host> _host = new(() => new("one-gpu", LabGpu.Standard));

    public Host Host => _host.Value;

    public void Dispose()
    {
        if (_host.IsValueCreated)
            _host.Value.Dispose();
    }
}
