using System.Text.Encodings.Web;
using System.Text.Json.Serialization;
using GpuHandoff.Guests;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Proxmox;

namespace GpuHandoff.Formats;

/// <summary>Our records as JSON: the ledger on disk and <c>--json</c>. Generated at build time, so it needs no reflection.</summary>
[JsonSourceGenerationOptions(
    GenerationMode = JsonSourceGenerationMode.Metadata,
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UseStringEnumConverter = true,
    RespectRequiredConstructorParameters = true,
    RespectNullableAnnotations = true,
    Converters = [typeof(AddressConverter), typeof(IdConverter), typeof(ClassConverter), typeof(VersionConverter)])]
[JsonSerializable(typeof(Plan))]
[JsonSerializable(typeof(Home))]
[JsonSerializable(typeof(ConsoleHome))]
[JsonSerializable(typeof(Machine))]
[JsonSerializable(typeof(Wedge))]
[JsonSerializable(typeof(Lease))]
[JsonSerializable(typeof(Loan))]
[JsonSerializable(typeof(Attachment))]
public sealed partial class Json : JsonSerializerContext
{
    /// <summary>For eyes and scripts, not for web pages: an arrow stays an arrow.</summary>
    public static Json Plain => new(new(Default.Options!) { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
}
