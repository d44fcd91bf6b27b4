using System.Runtime.InteropServices;
using GpuHandoff.Screen;

namespace GpuHandoff.Commands;

/// <summary>SIGTERM, SIGINT and SIGHUP as a wish: the step in hand ends, then everything is undone.</summary>
sealed class StopSignals : IDisposable
{
    readonly CancellationTokenSource _stop = new();
    readonly List<PosixSignalRegistration> _registrations = [];

    public StopSignals()
    {
        foreach (var signal in new[] { PosixSignal.SIGTERM, PosixSignal.SIGINT, PosixSignal.SIGHUP })
            _registrations.Add(PosixSignalRegistration.Create(signal, Handle));
    }

    public CancellationToken Stop => _stop.Token;

    void Handle(PosixSignalContext context)
    {
        context.Cancel = true;
        Say.Line(_stop.IsCancellationRequested
            ? $"{context.Signal} again: still undoing what was begun; it ends by itself"
            : $"{context.Signal}: the step in hand ends, then what was done is undone");
        _stop.Cancel();
    }

    public void Dispose()
    {
        _registrations.ForEach(r => r.Dispose());
        _stop.Dispose();
    }
}
