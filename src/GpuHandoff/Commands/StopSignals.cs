using System.Runtime.InteropServices;
using GpuHandoff.Screen;

namespace GpuHandoff.Commands;

/// <summary>SIGTERM, SIGINT and SIGHUP as a wish: the step in hand ends, then everything is undone.</summary>
sealed class StopSignals : IDisposable
{
    readonly Witness _witness;
    readonly CancellationTokenSource _stop = new();
    readonly List<PosixSignalRegistration> _registrations = [];

    public StopSignals(Witness witness)
    {
        _witness = witness;
        foreach (var signal in new[] { PosixSignal.SIGTERM, PosixSignal.SIGINT, PosixSignal.SIGHUP })
            _registrations.Add(PosixSignalRegistration.Create(signal, Handle));
    }

    public CancellationToken Stop => _stop.Token;

    void Handle(PosixSignalContext context)
    {
        context.Cancel = true;
        _witness.Says(_stop.IsCancellationRequested
            ? $"{context.Signal} again: {_witness.Now}; it ends by itself, and nothing is left halfway"
            : $"{context.Signal}: the step in hand ends, then what was done is undone");
        _stop.Cancel();
    }

    public void Dispose()
    {
        _registrations.ForEach(r => r.Dispose());
        _stop.Dispose();
    }
}
